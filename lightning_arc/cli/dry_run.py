"""``fit --dry_run true``: memory and time of a training, computed before it starts and without its weights."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table

from lightning_arc.callbacks.speed import operations_a_token
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.module import ArcDataModule
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.machine import computing_type, product_rate
from lightning_arc.model.memory import Memory, Probe, StepSize, memory
from lightning_arc.model.meta import meta_model

BATCHES = 16
"""Number of batches that are made to measure the size of a step."""

SHARE = 0.3
"""Share of a machine's matrix products that training is expected to reach where its speed is not measured."""

USABLE = 0.9
"""Share of a GPU's memory that a training may take; driver, libraries and fragmentation take the rest."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker's data sheet describes it.

    Args:
        name: its name.
        gigabytes: size of its memory.
        half: floating-point operations a second of matrix products in 16 bits, dense.
        single: the same in float32.
        bfloat16: whether it has products in bfloat16.
    """

    name: str
    gigabytes: int
    half: float
    single: float
    bfloat16: bool = True

    def rate(self, dtype: torch.dtype) -> float | None:
        """Return its operations a second in a type, ``None`` where it has no such products."""
        if dtype == torch.bfloat16 and not self.bfloat16:
            return None
        return self.half if dtype.itemsize == 2 else self.single

    def holds(self, n_bytes: int) -> bool:
        """Whether so many bytes fit into its memory."""
        return n_bytes <= USABLE * self.gigabytes * 1e9


GPUS = (
    Gpu("T4", 16, 65e12, 8.1e12, bfloat16=False),
    Gpu("P100", 16, 18.7e12, 9.3e12, bfloat16=False),
    Gpu("L4", 24, 121e12, 30.3e12),
    Gpu("A100", 80, 312e12, 19.5e12),
)
"""GPUs of 16, 24 and 80 GB, with the figures of NVIDIA's data sheets."""


@dataclass(frozen=True)
class Cost:
    """The cost of a training.

    Args:
        trained: number of trained weights.
        frozen: number of frozen weights.
        tokens: mean tokens per step and process in some batches, over all batches of a step.
        size: the largest sizes in these batches.
        steps: number of steps, ``None`` where it is not known.
        operations: floating-point operations of training per token, without and with gradient checkpointing.
        memory: memory of a step, without and with gradient checkpointing.
    """

    trained: int
    frozen: int
    tokens: float
    size: StepSize
    steps: int | None
    operations: Mapping[bool, float]
    memory: Mapping[bool, Memory]

    def hours(self, rate: float, recompute: bool) -> float | None:
        """Return the hours of the training at a rate of operations a second, perhaps with gradient checkpointing."""
        return None if self.steps is None else self.steps * self.tokens * self.operations[recompute] / rate / 3600


def add_options(parser: LightningArgumentParser) -> None:
    """Add the options of a dry run to a command's own."""
    (group,) = [g for g in parser._action_groups if any(a.dest == "ckpt_path" for a in g._group_actions)]
    group.add_argument(
        "--dry_run", type=bool, default=False, help="print what the training takes of memory and time, and do not train"
    )
    group.add_argument(
        "--dry_run_steps", type=int, default=0, help="steps that a dry run takes to measure the speed; 0 computes it"
    )


def cost(module: ArcModel, data: ArcDataModule, trainer: Namespace) -> Cost:
    """Compute the cost of a training.

    Args:
        module: settings of a model that has not been built.
        data: settings of the data, which are read here.
        trainer: settings of the trainer.

    Raises:
        DataError: if the data or the base's configuration cannot be read.
    """
    data.setup("fit")
    assert data.training is not None  # as the stage is ``fit``
    precision, accumulated = precision_name(trainer.precision), trainer.accumulate_grad_batches
    batches = [data.training.batch(_numbers(data, i)) for i in range(BATCHES)]
    size, tokens = step_size(batches, accumulated)
    model = meta_model(module, precision, data.prompt_encoder.kept if module.trim_vocabulary else None)
    probe = Probe.of(module, precision)
    trained, frozen = (
        sum(p.numel() for p in model.parameters() if p.requires_grad is learns) for learns in (True, False)
    )
    found = {again: memory(module, model, probe, size, precision, again) for again in (False, True)}
    operations = {again: operations_a_token(model, again) for again in (False, True)}
    return Cost(trained, frozen, tokens, size, _steps(data, trainer), operations, found)


def step_size(batches: Sequence[TreeBatch], accumulated: int = 1) -> tuple[StepSize, float]:
    """Return the largest sizes in some batches, and the mean tokens of a step.

    Args:
        batches: some batches of a training.
        accumulated: how many of them make a step.
    """
    packs = [sum(piece.n_tokens for piece in pack) for batch in batches for pack in batch.segments]
    targets = max(n for batch in batches for n in batch.n_targets)
    size = StepSize(max(packs), targets, max(len(batch.segments) for batch in batches), accumulated > 1)
    return size, accumulated * sum(sum(batch.n_tokens) for batch in batches) / len(batches)


def precision_name(precision: Any) -> str:
    """Return a ``trainer.precision`` as Lightning calls it in full (``16`` is ``16-mixed``)."""
    name = str(precision)
    return name if "-" in name else name + ("-mixed" if name.endswith("16") else "-true")


def dry_run(module: ArcModel, data: ArcDataModule, trainer: Namespace, measured_steps: int = 0) -> None:
    """Print the cost of a training.

    Args:
        module: settings of a model that has not been built.
        data: settings of the data.
        trainer: settings of the trainer.
        measured_steps: steps that are run to measure the speed of this machine, which needs the weights; 0 for none.
    """
    found, precision, console = cost(module, data, trainer), precision_name(trainer.precision), Console(highlight=False)
    recompute = module.gradient_checkpointing
    steps = "" if found.steps is None else f", {found.steps:,} steps"
    console.print(f"{found.trained:,} weights are trained, {found.frozen:,} are frozen.")
    console.print(f"{found.tokens:,.0f} tokens a step and process (mean of {BATCHES} batches){steps}.")
    console.print(f"Memory in precision {precision}; model.gradient_checkpointing is {str(recompute).lower()}:")
    console.print(_parts(found))
    dtype, device = computing_type(precision), "cuda" if torch.cuda.is_available() else "cpu"
    if measured_steps > 0:
        seconds, taken = measure(module, data, trainer, measured_steps)
        hours = None if found.steps is None else found.steps * seconds / 3600
        console.print(f"On this machine, measured in {measured_steps} steps: {seconds:.3g} s a step, {_time(hours)}.")
        if taken is not None:
            console.print(f"Most memory that these steps took: {_size(taken)}.")
    else:
        rate = SHARE * product_rate(dtype, device)
        console.print(
            f"On this machine ({device}): {_time(found.hours(rate, recompute))}, computed for {SHARE:.0%} of its "
            f"matrix products' {rate / SHARE / 1e12:.3g} TFLOP/s; --dry_run_steps 5 measures it."
        )
    console.print(_gpus(found, dtype))
    console.print(
        f"Computed, not measured: a training fits where it takes at most {USABLE:.0%} of a GPU's memory; hours are for "
        f"one GPU at {SHARE:.0%} of the matrix products that its data sheet gives, without validation. Small models "
        "reach a smaller share."
    )


def measure(module: ArcModel, data: ArcDataModule, trainer: Namespace, steps: int) -> tuple[float, int | None]:
    """Train for some steps; nothing is saved.

    Returns:
        Seconds per step after the first one, and the peak memory of a GPU in bytes, ``None`` on a CPU.
    """
    clock = _Clock()
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    kept = ("precision", "accelerator", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
    settings: dict[str, Any] = {name: trainer[name] for name in kept} | dict.fromkeys(quiet, False)
    settings |= {"max_steps": steps + 1, "limit_val_batches": 0, "num_sanity_val_steps": 0, "devices": 1}
    L.Trainer(callbacks=[clock], **settings).fit(module, datamodule=data)
    taken = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return (clock.times[-1] - clock.times[0]) / steps, taken


class _Clock(L.Callback):
    """Takes the time of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step > len(self.times):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def _numbers(data: ArcDataModule, batch: int) -> range:
    size = data.options.batch_size
    return range(batch * size, (batch + 1) * size)


def _steps(data: ArcDataModule, trainer: Namespace) -> int | None:
    if trainer.max_steps > 0:
        return trainer.max_steps
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return None
    batches = max(1, data.options.samples_per_epoch // data.options.batch_size)
    return trainer.max_epochs * -(-batches // trainer.accumulate_grad_batches)


def _parts(found: Cost) -> Table:
    """Return a table of the memory by part."""
    table, size = Table(), found.size
    table.add_column("part")
    table.add_column("without checkpointing", justify="right")
    table.add_column("with", justify="right")
    names = {
        "frozen": "frozen weights",
        "trained": "trained weights",
        "gradients": "gradients",
        "copies": f"their copies ({size.packs} packs a batch)",
        "optimizer": "optimizer's state",
        "activations": f"activations ({size.tokens:,} tokens a pack)",
        "layer": "a layer's backward pass",
        "logits": f"logits ({size.targets:,} targets a pack)",
        "most": "most at once",
    }
    for name, title in names.items():
        table.add_row(title, *(_size(getattr(found.memory[again], name)) for again in (False, True)))
    table.caption = "A layer's backward pass and logits do not take their memory at the same time."
    return table


def _gpus(found: Cost, dtype: torch.dtype) -> Table:
    """Return a table of the GPUs that the training fits on, and its hours there."""
    table = Table()
    for title in ("GPU", "without checkpointing", "with checkpointing"):
        table.add_column(title)
    for gpu in GPUS:
        rate = gpu.rate(dtype)
        if rate is None:
            verdicts = ["has no bfloat16: see --trainer.precision 16-mixed"] * 2
        else:
            verdicts = [
                f"fits, {_time(found.hours(SHARE * rate, again))}"
                if gpu.holds(found.memory[again].most)
                else "does not fit"
                for again in (False, True)
            ]
        table.add_row(f"{gpu.name}, {gpu.gigabytes} GB", *verdicts)
    return table


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.1f} MB"


def _time(hours: float | None) -> str:
    if hours is None:
        return "no end is set (trainer.max_steps)"
    minutes = hours * 60
    return f"{hours:,.1f} hours" if hours >= 1 else f"{minutes:,.0f} minutes" if minutes >= 1 else "under a minute"
