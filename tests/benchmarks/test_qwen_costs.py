"""The table of docs/qwen.md: computed memory and hours of Qwen's small models with LoRA on GPUs: `make bench`.

Shapes are the models' public ones (tests/model/shapes); the tokens of a step are those of Qwen2.5's tokenizer for all.
"""

import os
import shutil
from pathlib import Path

import pytest

from lightning_arc.cli.command_line import ArcCLI
from lightning_arc.cli.dry_run import BATCHES, GPUS, SHARE, cost, precision_name
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.machine import computing_type

from .ways import table

SHAPES = Path(__file__).parent.parent / "model" / "shapes"
TOKENIZER = Path(os.environ.get("ARC_SHARED", "../shared")) / "qwen2.5-0.5b"
SIZES = {16: "gpu_16gb", 24: "gpu_24gb", 80: "gpu_80gb"}


class Settings(ArcCLI):
    """The command line, which only makes the model and the data."""

    def _run_subcommand(self, subcommand):
        pass


def rows(folder: Path) -> list[tuple[str, ...]]:
    """Return a row a GPU and model."""
    made = []
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder)
    for gigabytes, config in SIZES.items():
        data = None
        for shape in sorted(SHAPES.glob("*.json")):
            shutil.copy(shape, folder / "config.json")
            configs = ["fit_qwen_lora", f"qwen/{shape.stem}", f"qwen/{config}"]
            words = [word for name in configs for word in ("--config", f"configs/{name}.yaml")]
            words += ["--model.model_path", str(folder), "--data.num_workers", "0", "--dry_run", "true"]
            parsed = Settings(args=["fit", *words])
            data = data or parsed.datamodule  # all read the same tokens
            module, trainer = parsed.model, parsed.config.fit.trainer
            assert isinstance(module, ArcModel)
            found = cost(module, data, trainer)
            dtype, again = computing_type(precision_name(trainer.precision)), module.gradient_checkpointing
            gpus = [gpu for gpu in GPUS if gpu.gigabytes == gigabytes]
            hours = ", ".join(f"{gpu.name} {found.hours(SHARE * gpu.rate(dtype), again):.1f}" for gpu in gpus)
            need = found.memory[again].most
            fits = "yes" if all(gpu.holds(need) for gpu in gpus) else "no"
            weights = f"{found.frozen / 1e6:,.0f} M + {found.trained / 1e6:,.0f} M"
            made.append((f"{gigabytes} GB", shape.stem, weights, f"{need / 1e9:.1f} GB", fits, hours))
            print(*made[-1], f"{found.tokens:,.0f} tokens a step", sep=" | ", flush=True)
    return made


def test_what_small_qwens_take(tmp_path):
    if not (TOKENIZER / "tokenizer.json").is_file():
        pytest.skip("needs Qwen2.5's tokenizer (ARC_SHARED)")
    columns = ("GPU", "model", "weights, frozen and trained", "memory", "fits", f"hours at {SHARE:.0%} of the peak")
    found = rows(tmp_path)
    table(f"LoRA of rank 128, computed from {BATCHES} batches", columns, found)
    assert all(row[4] == "yes" for row in found)
