"""Losses in turn: their sum is like any other loss."""

from functools import partial

import pytest
import torch

from lightning_arc.model.accumulation import accumulate_losses


def test_the_sum_has_the_value_and_the_gradients_of_all_losses_together():
    torch.manual_seed(0)
    used, also, never = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    inputs = torch.randn(4, 3, dtype=torch.float64)
    alive = []

    def loss(x, i):
        value = (used * x).sum().square() + (also.exp().sum() if i == 2 else 0)
        alive.append(value)
        return value, torch.tensor([1.0, float(i)])

    total, other = accumulate_losses([partial(loss, x, i) for i, x in enumerate(inputs)], [used, also, never])
    assert other.tolist() == [4.0, 6.0] and not other.requires_grad
    (total / 2).backward()
    expected = sum(loss(x, i)[0] for i, x in enumerate(inputs)) / 2
    torch.testing.assert_close(total / 2, expected)
    torch.testing.assert_close([used.grad, also.grad], [*torch.autograd.grad(expected, [used, also])])
    assert never.grad is None


def test_what_one_loss_computed_is_dropped_before_the_next():
    weight = torch.randn(2, requires_grad=True)
    graphs = []

    def loss(i):
        if graphs:  # its saved tensors are gone
            with pytest.raises(RuntimeError, match="second time"):
                graphs[-1].backward()
        value = weight.square().sum() * i
        graphs.append(value)
        return value, torch.zeros(1)

    accumulate_losses([partial(loss, i) for i in range(3)], [weight])[0].backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach() * 3)


def test_mixed_precision_casts_of_one_loss_are_not_taken_for_the_next():
    weight = torch.randn(4, 4, requires_grad=True)
    inputs = torch.randn(3, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [
            lambda x=x: (torch.nn.functional.linear(x, weight).float().square().sum(), torch.zeros(1)) for x in inputs
        ]
        total, _ = accumulate_losses(losses, [weight])
    total.backward()
    ours, weight.grad = weight.grad, None
    for loss in losses:
        with torch.autocast("cpu", torch.bfloat16):
            value = loss()[0]
        value.backward()
    torch.testing.assert_close(ours, weight.grad, rtol=0.02, atol=0.02)


def test_small_gradients_of_losses_in_float16_are_not_lost():
    torch.manual_seed(0)
    weight, inputs = torch.randn(4, 4, requires_grad=True), torch.randn(3, 5, 4)
    losses = [lambda x=x: (torch.nn.functional.linear(x, weight).float().sum() * 1e-8, torch.zeros(1)) for x in inputs]
    with torch.autocast("cpu", torch.float16):
        total, _ = accumulate_losses(losses, [weight])
    total.backward()
    expected = 1e-8 * inputs.sum((0, 1)).expand(4, 4)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-2, atol=1e-10)
