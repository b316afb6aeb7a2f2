"""How fast small models train and rank on a GPU, in trees: `make bench ARGS='-k gpu_speed'` where there is one.

Real evaluation tasks and candidates as data for speed alone; nothing that is trained here is kept.
"""

import time
from functools import partial

import pytest
import torch

from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Scratch
from lightning_arc.model.machine import product_rate
from lightning_arc.model.optimizers import make_optimizer
from lightning_arc.model.scoring import score_batch
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.tree import TokenTree

from .ways import real_trees, table, tree_batch

CANDIDATES = "lightning_arc/bundled/candidates/evaluation_60.json"
SIZES = {
    "6.1 M": Scratch(hidden_size=256, layers=8, heads=4, kv_heads=2, intermediate_size=640, positions="grid"),
    "7.9 M": Scratch(hidden_size=256, layers=10, heads=4, kv_heads=2, intermediate_size=688, positions="grid"),
}
WAYS = [
    # size, prompts a step, whether layers are compiled, attention
    ("6.1 M", 20, False, "flex"),
    ("7.9 M", 20, False, "flex"),
    ("7.9 M", 40, False, "flex"),
    ("7.9 M", 80, False, "flex"),
]
BRANCHES, LONGEST, STEPS = 6, 3072, 10

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def measure(size: str, prompts: int, compiles: bool, attention: str) -> tuple[list[object], list[object]]:
    """Return the figures of training and of ranking, as rows of a table."""
    torch.manual_seed(0)
    prompt_encoder = PromptEncoder(load_tokenizer(None), grid_positions=True)
    module = ArcModel(scratch=SIZES[size], compile=compiles, attention=attention)
    module.build("bf16-mixed")
    module.log = lambda *_, **__: None
    module.cuda()
    trees = real_trees(prompt_encoder, 2 * prompts, CANDIDATES, longest=LONGEST, least=2)
    trees = [TokenTree(t.prefix, t.prefix_targets, t.branches[:BRANCHES], t.prompt, t.positions) for t in trees]
    batch = partial(tree_batch, prompt_encoder=prompt_encoder)
    trained = [batch(trees[i::2], max_tokens=131_072, training=True).to("cuda") for i in range(2)]
    ranked = [batch(trees[i::2], max_tokens=131_072).to("cuda") for i in range(2)]
    optimizer = make_optimizer("muon", module.trained, 1e-3, 0.01, (0.9, 0.95), embeddings=_ends(module))
    weights = sum(p.numel() for p in module.model.get_decoder().layers.parameters() if p.dim() == 2)
    peak = product_rate(torch.bfloat16, "cuda")

    def train(i: int) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = module.training_step(trained[i % 2], i)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def rank(i: int) -> None:
        with torch.autocast("cuda", torch.bfloat16), torch.inference_mode():
            score_batch(module.causal_lm, ranked[i % 2])

    rows = []
    for work, batches, operations in ((train, trained, 6), (rank, ranked, 2)):
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for i in range(4):
            work(i)
        torch.cuda.synchronize()
        first = time.perf_counter() - start
        start = time.perf_counter()
        for i in range(STEPS):
            work(i)
        launched = time.perf_counter() - start
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        tokens = STEPS / 2 * sum(sum(b.n_tokens) for b in batches)
        about = size, prompts, "compiled" if compiles else "", attention, f"{tokens / STEPS:,.0f}"
        share = operations * weights * tokens / seconds / peak
        memory = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MB"
        times = f"{1000 * seconds / STEPS:.0f}", f"{1000 * launched / STEPS:.0f}", f"{first:.0f}"
        rows.append([work.__name__, *about, f"{tokens / seconds:,.0f}", *times, f"{share:.1%}", memory])
    return rows[0], rows[1]


def _ends(module: ArcModel) -> list[torch.nn.Parameter]:
    return [part.weight for part in (module.causal_lm.get_input_embeddings(), module.causal_lm.get_output_embeddings())]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
def test_training_and_ranking(way):
    columns = ("", "weights", "prompts", "layers", "attention", "tokens", "tokens/s")
    columns += ("ms a step", "ms launched", "s first 4", "of the peak", "memory")
    table(f"On {torch.cuda.get_device_name()}", columns, measure(*way))
