"""Ranking: a tree for all candidates of a test input, against a full prompt for each: `make bench`.

Real evaluation tasks and a solver's candidates, the bundled model. The plain ways are the library's own: batches of
right-padded prompts with their mask and no cache, and the same prompts one by one, which need neither.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.load import load_base
from lightning_arc.model.scoring import score_batch
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer

from .ways import (
    in_own_process,
    log_odds_of_sequences,
    main,
    peak_mb,
    real_trees,
    table,
    tokens_of,
    tree_batch,
    widened,
)

N_TESTS = 24
WAYS = {"padded": "full prompts, batched and padded", "single": "full prompts, one by one", "tree": "trees"}
CANDIDATES = "lightning_arc/bundled/candidates/evaluation_60.json"


def measure(backend: str, candidates: str = CANDIDATES, width: str = "0", share: str = "1") -> dict:
    model, prompt_encoder = load_base("bundled", torch.float32).eval(), PromptEncoder(load_tokenizer("bundled"))
    trees = real_trees(prompt_encoder, N_TESTS if width == "0" else 1, candidates)
    if width != "0":
        tree = widened(trees[0], int(width))
        kept = int(float(share) * len(tree.prefix))
        trees = [type(tree)(tree.prefix[:kept], tree.prefix_targets[:kept], tree.branches, tree.prompt)]
    if backend == "tree":
        use_tree_attention(model)
    values: list[float] = []
    before, start = peak_mb(), time.perf_counter()
    if backend == "tree":
        for first in range(0, len(trees), 8):
            values += score_batch(model, tree_batch(trees[first : first + 8], prompt_encoder)).log_odds.tolist()
    else:
        for tree in trees:
            values += log_odds_of_sequences(
                model, tree, prompt_encoder.yes_id, prompt_encoder.no_id, backend == "padded"
            )
    seconds = time.perf_counter() - start
    peak = {"peak_mb": peak_mb(), "own_mb": peak_mb() - before}
    return {"values": values, "seconds": seconds, "tokens": tokens_of(trees, backend != "tree"), **peak}


def row(name: str, result: dict, beside: dict) -> tuple[str, ...]:
    numbers = f"{len(result['values']):,}", f"{result['tokens']:,}", f"{result['seconds']:.2f}"
    ratio = f"{result['seconds'] / beside['seconds']:.1f}", f"{result['tokens'] / beside['tokens']:.1f}"
    return name, *numbers, f"{result['peak_mb']:.0f} MB", *ratio


COLUMNS = ("", "candidates", "tokens", "seconds", "peak", "times as long", "times as many tokens")


def test_all_candidates_of_real_test_inputs():
    shared = Path(os.environ.get("ARC_SHARED", "../shared")) / "data" / "candidates" / "evaluation_dev.json"
    candidates = str(shared if shared.is_file() else CANDIDATES)
    results = {backend: in_own_process(__file__, backend, candidates) for backend in WAYS}
    for result in results.values():
        np.testing.assert_allclose(result["values"], results["single"]["values"], rtol=1e-3, atol=1e-3)
    rows = [row(name, results[backend], results["tree"]) for backend, name in WAYS.items()]
    table(f"ranking {N_TESTS} test inputs of {candidates}, bundled model", COLUMNS, rows)


@pytest.mark.parametrize("share", ["0.5", "1"])
def test_how_cost_grows_with_candidates_and_prefix(share):
    rows = []
    for width in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        tree = in_own_process(__file__, "tree", CANDIDATES, str(width), share)
        rows.append(row(f"trees, {width}", tree, tree))
        if width <= 64:
            plain = in_own_process(__file__, "padded", CANDIDATES, str(width), share)
            rows.append(row(f"full prompts, {width}", plain, tree))
    table(f"one test input, {share} of its prefix, its candidates over and over", COLUMNS, rows)


if __name__ == "__main__":
    main(measure)
