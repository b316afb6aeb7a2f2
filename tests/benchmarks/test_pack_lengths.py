"""What it brings that packs in 16 bits have few different lengths: `make bench`. Each row is a process of its own."""

import json
import random
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from .ways import peak_mb, real_trees, table

ROOT = Path(__file__).parents[2]
CANDIDATES = str(ROOT / "lightning_arc/bundled/candidates/evaluation_60.json")


def measure(work: str, rounded: bool) -> dict[str, float]:
    """Run the bundled model over 60 real prompts, four a step, each step's packs once: ``train`` or ``rank``."""
    from lightning_arc.data.batch import TreeBatch
    from lightning_arc.model import tree_forward
    from lightning_arc.model.arc_model import ArcModel
    from lightning_arc.model.scoring import score_batch
    from lightning_arc.prompt.prompt_encoder import PromptEncoder
    from lightning_arc.prompt.tokenizer import load_tokenizer

    if not rounded:
        tree_forward._multiple = lambda n, decoder: 1
    encoder = PromptEncoder(load_tokenizer(None))
    module = ArcModel("bundled")
    module.build("bf16-mixed", None)
    module.log = lambda *_, **__: None
    training = work == "train"
    module.train(training)
    trees = real_trees(encoder, 60, CANDIDATES, longest=2048, least=2)
    random.Random(0).shuffle(trees)
    ids = encoder.yes_id, encoder.no_id, encoder.choice_ids

    def step(first: int) -> None:
        batch = TreeBatch.collate(trees[first : first + 4], *ids, max_tokens=4096, training=training)
        with torch.autocast("cpu", torch.bfloat16), nullcontext() if training else torch.inference_mode():
            if training:
                module.training_step(batch, 0).backward()
            else:
                score_batch(module.causal_lm, batch)

    step(0)  # what is loaded and timed once
    start = time.perf_counter()
    for first in range(4, len(trees), 4):
        step(first)
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def test_few_lengths_of_packs_take_less_time_and_memory():
    rows = []
    for work in ("rank", "train"):
        each, rounded = (
            json.loads(
                subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.test_pack_lengths", work, way],
                    cwd=ROOT,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.splitlines()[-1]
            )
            for way in ("each", "rounded")
        )
        numbers = [f"{x[name]:.1f}" for name in ("seconds", "peak_mb") for x in (each, rounded)]
        rows.append((work, *numbers, f"{each['seconds'] / rounded['seconds']:.2f}"))
    names = ("work", "each length, s", "few lengths, s", "each length, MB", "few lengths, MB", "times")
    table("lengths of packs in bfloat16, the bundled model", names, rows)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2] == "rounded")))
