"""Losses that are computed one after the other and summed, with the memory of one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lightning_arc.model.autocast import LIFT, autocast_type


def accumulate_losses(
    losses: Sequence[Callable[[], tuple[Tensor, Tensor]]], parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Sum losses whose gradients are made, and whose activations are dropped, before the next one is computed.

    To whoever takes its gradient the sum is like any other loss: it may be scaled, its gradients clipped, averaged over
    processes and accumulated over steps, as they reach the parameters in its backward pass.

    Args:
        losses: each computes a loss and what else is to be summed, which has no gradient.
        parameters: all that the losses depend on and whose gradient is wanted.

    Returns:
        The sum of the losses, and of what else each gave.
    """
    if len(losses) == 1:
        return losses[0]()
    return _SumInTurn.apply(losses, *parameters)


class _SumInTurn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, losses: Sequence[Callable[[], tuple[Tensor, Tensor]]], *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        total = other = None
        gradients: list[Tensor | None] = [None] * len(parameters)
        lift = LIFT if autocast_type(parameters[0].device.type) == torch.float16 else 1.0
        for compute in losses:
            torch.clear_autocast_cache()  # casts of weights belong to the graph that was freed
            with torch.enable_grad():
                loss, more = compute()
                found = torch.autograd.grad(loss * lift, parameters, allow_unused=True)
            for i, gradient in enumerate(found):
                if gradient is not None:
                    gradient = gradient if lift == 1 else gradient / lift
                    gradients[i] = gradient if gradients[i] is None else gradients[i] + gradient
            total = loss.detach() if total is None else total + loss.detach()
            other = more if other is None else other + more
        torch.clear_autocast_cache()
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(other)
        return total, other

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(None if gradient is None else gradient * scale for gradient in ctx.saved_tensors)
