"""A Qwen2.5-0.5B with random weights: training steps and a ranking, in bfloat16: `make bench`.

On a CPU three steps of 1,024 tokens with LoRA of rank 128 and two test inputs, within 8 GiB of peak memory;
on a GPU batches of 16 prompts of up to 4,096 tokens, beside the measured peak of a matrix product. The plain way, one
sequence for each answer, runs beside both.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Lora
from lightning_arc.model.optimizers import make_optimizer
from lightning_arc.model.scoring import score_batch
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.tree import TokenTree
from lightning_arc.prompt.vocabulary import prompt_vocabulary

from .ways import in_own_process, main, peak_mb, real_trees, table, tokens_of, tree_batch

CANDIDATES = "lightning_arc/bundled/candidates/evaluation_60.json"
FOLDER = Path(os.environ.get("ARC_SHARED", "../shared")) / "qwen2.5-0.5b"
WAYS = {"sequence": "one sequence an answer", "tree": "trees", "trimmed": "trees, trimmed vocabulary"}
ON_GPU = torch.cuda.is_available()


def saved_model(folder: str) -> None:
    """A checkpoint of random weights beside the real tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FOLDER / name, folder)


def separate(trees: list[TokenTree]) -> list[TokenTree]:
    """The plain way: a tree of its own for every branch."""
    return [TokenTree(t.prefix, t.prefix_targets, (b,), t.prompt) for t in trees for b in t.branches]


def product_peak(device: str) -> float:
    """Floating-point operations a second of a large matrix product in bfloat16."""
    n = 8192 if ON_GPU else 2048
    a = torch.randn(n, n, dtype=torch.bfloat16, device=device)
    a @ a
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    if ON_GPU:
        torch.cuda.synchronize()
    return 10 * 2 * n**3 / (time.perf_counter() - start)


def measure(backend: str, folder: str) -> dict:
    device = "cuda" if ON_GPU else "cpu"
    tokenizer = load_tokenizer(folder)
    kept = prompt_vocabulary(PromptEncoder(tokenizer)) if backend == "trimmed" else None
    prompt_encoder = PromptEncoder(tokenizer, kept=kept)
    module = ArcModel(folder, lora=Lora(r=128, alpha=64), trim_vocabulary=kept is not None)
    module.build("bf16-mixed", kept)
    module.log = lambda *_, **__: None
    module.to(device)
    limit, n_trees, steps = (4096, 16, 10) if ON_GPU else (1024, 1, 3)
    drawn = real_trees(prompt_encoder, n_trees * steps, CANDIDATES, longest=limit, least=2)
    trees = []
    for tree in drawn:
        branches = tree.branches[:5]
        while not ON_GPU and len(tree.prefix) + sum(len(b.tokens) for b in branches) > limit and len(branches) > 1:
            branches = branches[:-1]
        trees.append(TokenTree(tree.prefix, tree.prefix_targets, branches, tree.prompt))
    optimizer = make_optimizer("adamw", module.trained, 1e-4, 0.01, (0.9, 0.95))
    module.train()
    times, sizes = [], []
    for step in range(steps):
        some = trees[step * n_trees : (step + 1) * n_trees]
        given = separate(some) if backend == "sequence" else some
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            batch = tree_batch(given, prompt_encoder, training=True).to(device)
            module.training_step(batch, 0).backward()
        optimizer.step()
        optimizer.zero_grad()
        if ON_GPU:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        sizes.append((tokens_of(given, False), sum(len(t.branches) for t in some)))
    module.eval()
    ranked = real_trees(prompt_encoder, 16 if ON_GPU else 2, CANDIDATES, longest=limit, least=4)
    given = separate(ranked) if backend == "sequence" else ranked
    start = time.perf_counter()
    with torch.autocast(device, torch.bfloat16):
        scores = score_batch(module.causal_lm, tree_batch(given, prompt_encoder).to(device))
    scores.log_odds.tolist()
    ranking = time.perf_counter() - start
    warm = 2 if ON_GPU else 0
    tokens, verdicts = (sum(size[i] for size in sizes[warm:]) for i in (0, 1))
    seconds = sum(times[warm:])
    weights = sum(p.numel() for p in module.causal_lm.get_decoder().layers.parameters())
    return {
        "tokens": tokens,
        "seconds": seconds,
        "verdicts": verdicts,
        # forward and backward through frozen weights: two products of the three that training all weights takes
        "share": 4 * weights * tokens / seconds / product_peak(device),
        "ranking": ranking,
        "candidates": sum(len(t.branches) for t in ranked),
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20 if ON_GPU else peak_mb(),
    }


def test_training_and_ranking_of_the_half_billion_shape():
    if not (FOLDER / "config.json").is_file():
        pytest.skip("needs Qwen2.5's configuration and tokenizer (ARC_SHARED)")
    with tempfile.TemporaryDirectory() as folder:
        saved_model(folder)
        results = {backend: in_own_process(__file__, backend, folder) for backend in WAYS}
    rows = []
    for backend, name in WAYS.items():
        r = results[backend]
        training = f"{r['tokens']:,}", f"{r['seconds']:.1f}", f"{r['verdicts'] / r['seconds']:.2f}", f"{r['share']:.0%}"
        ranking = f"{r['candidates'] / r['ranking']:.2f}"
        rows.append((name, *training, ranking, f"{r['peak_mb']:,.0f} MB"))
    columns = ("", "tokens", "seconds", "verdicts/s", "of the product's peak", "candidates ranked/s", "peak")
    table("Qwen2.5-0.5B's shape, bfloat16, LoRA of rank 128", columns, rows)
    if not ON_GPU:
        assert results["tree"]["peak_mb"] < 8192


if __name__ == "__main__":
    main(measure)
