"""Losses that are computed one after the other and summed, with the memory of one."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from lightning_arc.model.autocast import LIFT, autocast_type
from lightning_arc.model.autograd import Context


def accumulate_losses(
    losses: Sequence[Callable[[], tuple[Tensor, Tensor]]], parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Sum losses; each one's gradients are computed and its activations freed before the next loss is computed.

    The sum behaves like any other loss: gradients reach the parameters in its backward pass, so that it may be scaled,
    and its gradients clipped, averaged over processes and accumulated over steps.

    Args:
        losses: each computes a loss and a tensor without gradient that is summed too.
        parameters: all parameters of the losses whose gradient is wanted.

    Returns:
        The sum of the losses, and the sum of the other tensors.
    """
    if len(losses) == 1:
        return losses[0]()
    return _SumInTurn.apply(losses, *parameters)


class _SumInTurn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, losses: Sequence[Callable[[], tuple[Tensor, Tensor]]], *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        totals, others = [], []
        gradients: list[Tensor | None] = [None] * len(parameters)
        lift = LIFT if autocast_type(parameters[0].device.type) == torch.float16 else 1.0
        for compute in losses:
            torch.clear_autocast_cache()  # casts of weights belong to the graph that was freed
            with torch.enable_grad():
                loss, more = compute()
                found = torch.autograd.grad(loss * lift, parameters, allow_unused=True)
            for i, gradient in enumerate(found):
                if gradient is not None:
                    gradient, before = gradient if lift == 1 else gradient / lift, gradients[i]
                    gradients[i] = gradient if before is None else before + gradient
            totals.append(loss.detach())
            others.append(more)
        total, other = reduce(torch.add, totals), reduce(torch.add, others)
        torch.clear_autocast_cache()
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(other)
        return total, other

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Context, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(None if gradient is None else gradient * scale for gradient in ctx.saved_tensors)
