"""Optimizers and schedules by name."""

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from lightning_arc.errors import DataError

OptimizerName = Literal["adamw", "muon", "paged_adamw_8bit"]
ScheduleName = Literal["linear", "cosine", "constant", "stable"]

FALL = 0.2
"""Share of all steps, the last ones, in which the schedule ``stable`` falls."""


def _gradients_of(closure: Callable[[], Any] | None) -> Any:
    """Call a closure, if given, which computes the gradients; return its result."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class BatchedMuon(torch.optim.Muon):
    """Torch's Muon, with matrices of one shape in one product: a GPU runs a tenth of the kernels.

    Updates and state are the same, up to the rounding of products in bfloat16.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all weights; return the result of ``closure``, which computes the gradients."""
        result = _gradients_of(closure)
        for group in self.param_groups:
            params: list[Tensor] = []
            gradients: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, params, gradients, momenta)
            if not params:
                continue
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            by_shape: dict[torch.Size, list[int]] = {}
            for i, p in enumerate(params):
                by_shape.setdefault(p.shape, []).append(i)
            for shape, places in by_shape.items():
                same = torch.stack([updates[i] for i in places])
                turned = _orthogonalized(same, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rate = group["lr"] * 0.2 * max(shape) ** 0.5  # the size of AdamW's updates
                own = list(turned.to(params[places[0]].dtype).unbind())
                torch._foreach_add_([params[i] for i in places], own, alpha=-rate)
        return result


def _orthogonalized(matrices: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """Return ``(n, rows, columns)`` matrices with singular values near 1, by Newton-Schulz iterations in bfloat16."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonWithAdamW(Optimizer):
    """Muon (Jordan et al., 2024) for matrices, and AdamW for all other weights, as one optimizer.

    Muon's updates are scaled to the size of AdamW's (Liu et al., 2025), so that both take one learning rate.

    Args:
        matrices: parameters of two dimensions, for Muon.
        others: parameters for AdamW, in groups.
        learning_rate: learning rate of all parameters.
        weight_decay: decay of the matrices.
        betas: decay rates of AdamW's averages.
        fused: whether AdamW updates all weights in one pass.
    """

    def __init__(
        self,
        matrices: list[Parameter],
        others: list[dict[str, Any]],
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        fused: bool,
    ) -> None:
        muon = BatchedMuon(matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, learning_rate, betas=betas, fused=fused)
        self._parts = {"muon": muon, "adamw": adamw}
        groups = [group | {"update": name} for name, part in self._parts.items() for group in part.param_groups]
        super().__init__(groups, {})
        self._step_supports_amp_scaling = getattr(adamw, "_step_supports_amp_scaling", False)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all weights; return the result of ``closure``, which computes the gradients."""
        result = _gradients_of(closure)
        for name, part in self._parts.items():
            part.state, part.param_groups = self.state, [g for g in self.param_groups if g["update"] == name]
            part.step()
        return result


def make_optimizer(
    name: OptimizerName,
    parameters: Iterable[Parameter],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    fused: bool = True,
    embeddings: Iterable[Parameter] = (),
) -> Optimizer:
    """Make an optimizer in which only matrices decay.

    Args:
        name: ``adamw`` (Loshchilov and Hutter, 2019); ``muon``, see `MuonWithAdamW`; or ``paged_adamw_8bit`` (Dettmers
            et al., 2022 and 2023) of bitsandbytes, whose averages take a byte per number and may leave the GPU's
            memory.
        parameters: the trained weights.
        learning_rate: highest learning rate.
        weight_decay: decay of matrices.
        betas: decay rates of both averages.
        fused: whether ``adamw`` updates all weights in one pass.
        embeddings: weights of embeddings and heads, which ``muon`` leaves to AdamW.

    Raises:
        DataError: if a package or device that the optimizer needs is missing.
    """
    trained, matrices = list(parameters), []
    if name == "muon":
        aside = {id(weight) for weight in embeddings}
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in aside]
        trained = [p for p in trained if p.ndim != 2 or id(p) in aside]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if matrices and groups:
        return MuonWithAdamW(matrices, groups, learning_rate, weight_decay, betas, fused)
    if matrices:
        return BatchedMuon(matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw")
    if name != "paged_adamw_8bit":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused)
    require_bitsandbytes(f"model.optimizer {name}")
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit(groups, lr=learning_rate, betas=betas)


def make_schedule(name: ScheduleName, optimizer: Optimizer, warmup_steps: int, steps: float) -> LambdaLR:
    """Make a schedule that rises over ``warmup_steps`` and falls over ``steps``, which may be infinite if constant.

    ``stable`` keeps the highest rate and falls in a line over the last fifth of the steps (Hu et al., 2024): training
    that has not begun to fall can go on for more steps as if that had been planned.

    Raises:
        DataError: if a falling schedule has an infinite number of steps.
    """
    if name == "constant":
        return get_scheduler("constant_with_warmup", optimizer, warmup_steps)
    if steps == float("inf"):
        raise DataError(f"trainer.max_steps: model.schedule {name} needs it")
    if name == "stable":
        falls = max(1, int(FALL * steps))
        how = {"num_decay_steps": falls, "decay_type": "linear"}
        return get_scheduler("warmup_stable_decay", optimizer, warmup_steps, int(steps), scheduler_specific_kwargs=how)
    return get_scheduler(name, optimizer, warmup_steps, int(steps))


def use_settings(schedule: LambdaLR, learning_rate: float, weight_decay: float, betas: tuple[float, float]) -> None:
    """Apply these settings to a restored schedule and its optimizer, which keep their step, see `make_optimizer`."""
    groups = schedule.optimizer.param_groups
    schedule.base_lrs = [learning_rate] * len(groups)
    for group, factor in zip(groups, schedule.lr_lambdas, strict=True):
        decays = group["params"][0].ndim >= 2
        group |= {"weight_decay": weight_decay if decays else 0.0, "betas": tuple(betas)}
        group |= {"initial_lr": learning_rate, "lr": learning_rate * factor(schedule.last_epoch)}
    schedule._last_lr = [group["lr"] for group in groups]


def require_bitsandbytes(wanted: str) -> None:
    """Refuse a feature that needs bitsandbytes and a GPU if either is missing.

    Raises:
        DataError: names the feature ``wanted`` and what is missing.
    """
    if not torch.cuda.is_available():
        raise DataError(f"{wanted}: needs an NVIDIA GPU")
    if find_spec("bitsandbytes") is None:
        raise DataError(f"{wanted}: needs bitsandbytes, pip install 'lightning-arc[quantized]'")
