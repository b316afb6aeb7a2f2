"""How fast frozen weights are multiplied in 8-bit integers, and how near the result is: `make bench`.

Each row is a process of its own. The first row of each table is the plain way: all products in float32.
"""

import os
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from .ways import in_own_process, main, peak_mb, real_trees, table, tokens_of, tree_batch

ROOT = Path(__file__).parents[2]
CANDIDATES = str(ROOT / "lightning_arc/bundled/candidates/evaluation_60.json")
QWEN = Path(os.environ.get("ARC_QWEN", "qwen2.5-coder-0.5b")).absolute()
ADAPTER = "bundled:qwen2.5-coder-0.5b"
WAYS = {"float32": ("32-true", False), "8 bits": ("32-true", True), "bfloat16": ("bf16-mixed", False)}
LONGEST, BRANCHES = 1600, 6


def measure(model: str, work: str, way: str) -> dict:
    """Run the same real prompts, ``train`` or ``rank``; return the least seconds, and log-odds or gradients."""
    from lightning_arc.data.batch import TreeBatch
    from lightning_arc.model.arc_model import ArcModel
    from lightning_arc.model.load import Lora
    from lightning_arc.model.scoring import score_batch
    from lightning_arc.prompt.prompt_encoder import PromptEncoder
    from lightning_arc.prompt.tokenizer import load_tokenizer
    from lightning_arc.prompt.tree import TokenTree
    from lightning_arc.prompt.vocabulary import prompt_vocabulary

    precision, int8 = WAYS[way]
    training, is_qwen = work == "train", model == "Qwen"
    torch.manual_seed(0)
    if is_qwen:
        tokenizer = load_tokenizer(str(QWEN))
        kept = prompt_vocabulary(PromptEncoder(tokenizer))
        encoder = PromptEncoder(tokenizer, kept=kept)
        module = ArcModel(str(QWEN), adapter_path=ADAPTER, trim_vocabulary=True, int8_products=int8)
    else:
        kept, encoder = None, PromptEncoder(load_tokenizer(None), grid_positions=True)
        module = ArcModel("bundled", lora=Lora(r=16, alpha=16), int8_products=int8)
    module.build(precision, kept)
    module.log = lambda *_, **__: None
    module.train(training)
    trees = real_trees(encoder, 2 if is_qwen else 12, CANDIDATES, longest=LONGEST, least=2)
    if training:
        trees = [TokenTree(t.prefix, t.prefix_targets, t.branches[:BRANCHES], t.prompt) for t in trees]
    batch: TreeBatch = tree_batch(trees, encoder, training, max_tokens=4096)

    def step() -> list[float]:
        with torch.autocast("cpu", torch.bfloat16) if precision.startswith("bf16") else nullcontext():
            if not training:
                with torch.inference_mode():
                    return score_batch(module.causal_lm, batch).log_odds.tolist()
            loss = module.training_step(batch, 0)
        module.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in module.trained])[::50].tolist()

    taken = []
    for _ in range(4):  # the first time packs weights, the second gets new memory from the system
        start = time.perf_counter()
        numbers = step()
        taken.append(time.perf_counter() - start)
    return {"seconds": min(taken), "peak_mb": peak_mb(), "tokens": tokens_of(trees, copies=False), "numbers": numbers}


@pytest.mark.parametrize("work", ["rank", "train"])
@pytest.mark.parametrize("model", ["Qwen", "bundled"])
def test_8_bits_are_compared_with_float32_and_bfloat16(model, work):
    if model == "Qwen" and not (QWEN / "config.json").is_file():
        pytest.skip("ARC_QWEN names no folder with Qwen2.5-Coder-0.5B-Instruct")
    results = {way: in_own_process(__file__, model, work, way) for way in WAYS}
    plain = results["float32"]
    exact = torch.tensor(plain["numbers"], dtype=torch.float64)
    known, rows = exact.isfinite(), []
    for way, r in results.items():
        off = torch.tensor(r["numbers"], dtype=torch.float64)[known] - exact[known]
        error = float(off.norm() / (exact[known] - exact[known].mean()).norm())
        speed = f"{r['tokens'] / r['seconds']:,.0f}", f"{plain['seconds'] / r['seconds']:.2f}"
        rows.append((way, f"{r['tokens']:,}", f"{r['seconds']:.1f}", *speed, f"{r['peak_mb']:,.0f} MB", f"{error:.3f}"))
    assert float(rows[1][-1]) < 0.5, "8-bit products give other numbers"
    columns = ("products", "tokens", "seconds", "tokens/s", "times as fast", "memory", "error / spread")
    table(f"{work}: {model}; error of {'log-odds' if work == 'rank' else 'gradients'}", columns, rows)


if __name__ == "__main__":
    main(measure)
