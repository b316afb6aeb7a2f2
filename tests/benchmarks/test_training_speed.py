"""Training: verdicts supervised a second by trees, by a padded sequence each, and by TRL's trainer with packing.

Real evaluation tasks and candidates as data for speed alone; nothing that is trained here is kept. `make bench`.
"""

import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_arc.folders import BUNDLED_MODEL
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.optimizers import make_optimizer
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.tree import IGNORE, PromptKind, TokenTree

from .ways import (
    MAX_TOKENS,
    in_own_process,
    main,
    peak_mb,
    real_trees,
    seconds_of_sft,
    table,
    tokens_of,
    tree_batch,
    whole_sequences,
)

CANDIDATES = "lightning_arc/bundled/candidates/evaluation_60.json"
N_TREES, STEP = 8, 4
WAYS = {
    "padded": "padded sequences with masks",
    "single": "sequences, one by one",
    "packing": "SFTTrainer, packing",
    "tree": "trees",
}


def work(prompt_encoder: PromptEncoder, verdicts: int) -> list[TokenTree]:
    trees = real_trees(prompt_encoder, N_TREES, CANDIDATES, longest=3000, least=verdicts)
    return [TokenTree(t.prefix, t.prefix_targets, t.branches[:verdicts], t.prompt) for t in trees]


def loss_of_sequences(model: torch.nn.Module, trees: list[TokenTree], padded: bool) -> float:
    """The plain way: every verdict behind its whole prompt, in padded batches or one by one; gradients add up."""
    branches = [(tree, branch) for tree in trees for branch in tree.branches]
    totals = np.zeros(len(PromptKind))
    for _, branch in branches:
        np.add.at(totals, branch.kinds, branch.weights * (branch.targets != IGNORE))
    size = max(1, MAX_TOKENS // max(tree.longest for tree in trees)) if padded else 1
    for tree in trees:
        for start in range(0, len(tree.branches), size):
            rows = tree.branches[start : start + size]
            ids, mask, targets = whole_sequences(tree, rows)
            weights = torch.zeros(targets.shape)
            for i, branch in enumerate(rows):
                own = branch.weights / np.maximum(totals, 1e-9)[branch.kinds]
                weights[i, len(tree.prefix) : len(tree.prefix) + len(own)] = torch.from_numpy(own).float()
            hidden = model.get_decoder()(input_ids=ids, attention_mask=mask if padded else None, use_cache=False)
            hidden = hidden.last_hidden_state
            at = (targets != IGNORE) & (weights > 0)
            losses = F.cross_entropy(model.get_output_embeddings()(hidden[at]), targets[at], reduction="none")
            (losses * weights[at]).sum().backward()
    return float(sum(p.grad.double().square().sum() for p in model.parameters()) ** 0.5)


def train_packed(module: ArcModel, trees: list[TokenTree], tokenizer) -> float:
    """TRL's trainer on the same sequences, with the same tokens supervised; returns its seconds."""
    rows = []
    for tree in trees:
        for i, branch in enumerate(tree.branches):
            ids = tree.sequence(i)
            completion = np.zeros(len(ids), np.int64)
            completion[len(tree.prefix) + 1 :] = (branch.targets != IGNORE) & (branch.weights > 0)
            rows.append({"input_ids": ids.tolist(), "completion_mask": completion.tolist()})
    return seconds_of_sft(module.model, rows, tokenizer, bf16=False)


def measure(backend: str, verdicts: str) -> dict:
    prompt_encoder = PromptEncoder(load_tokenizer("bundled"))
    trees = work(prompt_encoder, int(verdicts))
    module = ArcModel(str(BUNDLED_MODEL))
    module.build()
    module.log = lambda *_, **__: None
    model, norms, seconds = module.model, [], 0.0
    if backend == "packing":
        model.set_attn_implementation("sdpa")
        seconds = train_packed(module, trees, prompt_encoder.tokenizer)
    else:
        if backend != "tree":
            model.set_attn_implementation("sdpa")
        model.train()
        optimizer = make_optimizer("adamw", module.trained, 1e-4, 0.01, (0.9, 0.95))
        for first in range(0, len(trees), STEP):
            step = trees[first : first + STEP]
            start = time.perf_counter()
            optimizer.zero_grad()
            if backend == "tree":
                module.training_step(tree_batch(step, prompt_encoder, training=True), 0).backward()
                norms.append(float(sum(p.grad.double().square().sum() for p in model.parameters()) ** 0.5))
            else:
                norms.append(loss_of_sequences(model, step, backend == "padded"))
            optimizer.step()
            seconds += time.perf_counter() - start
    n = sum(len(t.branches) for t in trees)
    tokens = tokens_of(trees, backend != "tree")
    return {"norms": norms, "seconds": seconds, "verdicts": n, "tokens": tokens, "peak_mb": peak_mb()}


@pytest.mark.parametrize("verdicts", [5, 16])
def test_verdicts_supervised_a_second(verdicts):
    results = {backend: in_own_process(__file__, backend, str(verdicts)) for backend in WAYS}
    for backend in ("padded", "single"):
        np.testing.assert_allclose(results["tree"]["norms"], results[backend]["norms"], rtol=1e-3)
    tree, rows = results["tree"], []
    for backend, name in WAYS.items():
        r = results[backend]
        rate = f"{r['seconds']:.1f}", f"{r['verdicts'] / r['seconds']:.2f}", f"{r['peak_mb']:.0f} MB"
        rows.append((name, f"{r['tokens']:,}", *rate, f"{r['seconds'] / tree['seconds']:.1f}"))
    columns = ("", "tokens", "seconds", "verdicts/s", "peak", "times as long")
    table(f"{N_TREES} test inputs, {verdicts} answers each, bundled model, all weights trained", columns, rows)


if __name__ == "__main__":
    main(measure)
