"""Optimizers and schedules by name.

Knows parameters and learning rates. Knows nothing of models or losses.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from lightning_arc.arc.grid import DataError

OptimizerName = Literal["adamw", "paged_adamw_8bit"]
ScheduleName = Literal["linear", "cosine", "constant"]


def make_optimizer(
    name: OptimizerName,
    parameters: Iterable[Parameter],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    fused: bool = True,
) -> Optimizer:
    """Make an optimizer in which only matrices decay.

    Args:
        name: ``adamw`` (Loshchilov and Hutter, 2019); or ``paged_adamw_8bit`` (Dettmers et al., 2022 and 2023),
            whose averages take a byte a number and may leave the GPU's memory, from bitsandbytes.
        parameters: what is trained.
        learning_rate: highest learning rate.
        weight_decay: decay of matrices.
        betas: of both averages.
        fused: whether ``adamw`` updates all weights in one pass.

    Raises:
        DataError: if what the optimizer needs is missing.
    """
    trained = list(parameters)
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused)
    require_bitsandbytes(f"model.optimizer {name}")
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit(groups, lr=learning_rate, betas=betas)


def make_schedule(name: ScheduleName, optimizer: Optimizer, warmup_steps: int, steps: float) -> LambdaLR:
    """Make a schedule that rises over ``warmup_steps`` and falls over ``steps``, which may be infinite if constant.

    Raises:
        DataError: if it is to fall, and never ends.
    """
    if name == "constant":
        return get_scheduler("constant_with_warmup", optimizer, warmup_steps)
    if steps == float("inf"):
        raise DataError(f"trainer.max_steps: model.schedule {name} needs it")
    return get_scheduler(name, optimizer, warmup_steps, int(steps))


def use_settings(schedule: LambdaLR, learning_rate: float, weight_decay: float, betas: tuple[float, float]) -> None:
    """Let a restored schedule and its optimizer go on from their step with these settings, see `make_optimizer`."""
    groups = schedule.optimizer.param_groups
    schedule.base_lrs = [learning_rate] * len(groups)
    for group, factor in zip(groups, schedule.lr_lambdas, strict=True):
        decays = group["params"][0].ndim >= 2
        group |= {"weight_decay": weight_decay if decays else 0.0, "betas": tuple(betas)}
        group |= {"initial_lr": learning_rate, "lr": learning_rate * factor(schedule.last_epoch)}
    schedule._last_lr = [group["lr"] for group in groups]


def require_bitsandbytes(wanted: str) -> None:
    """Refuse what bitsandbytes is needed for where it, or a GPU, is not there.

    Raises:
        DataError: names ``wanted`` and what is missing.
    """
    if not torch.cuda.is_available():
        raise DataError(f"{wanted}: needs an NVIDIA GPU")
    if find_spec("bitsandbytes") is None:
        raise DataError(f"{wanted}: needs bitsandbytes, pip install 'lightning-arc[quantized]'")
