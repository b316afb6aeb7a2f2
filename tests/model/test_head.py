"""The head: losses and gradients in chunks are those of all logits at once."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_arc.model import head as head_module
from lightning_arc.model.head import Head, chunked_cross_entropy, target_log_probs


@pytest.fixture(params=[3, 10**9], ids=["chunks of three", "one chunk"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(head_module, "LOGITS_PER_CHUNK", 50 * request.param)


CHANGES = pytest.mark.parametrize("changes", [{}, {"scale": 0.25}, {"cap": 0.7}, {"scale": 3.0, "cap": 1.5}], ids=str)


def given(n, dtype, changes=None):
    torch.manual_seed(0)
    head = Head(torch.nn.Linear(16, 50, bias=False, dtype=dtype), **changes or {})
    hidden = torch.randn(n, 16, dtype=dtype, requires_grad=True)
    return head, hidden, torch.randint(50, (n,)), torch.rand(n, dtype=dtype)


def all_logits(head, hidden):
    """The plain way, as models write it."""
    logits = head.linear(hidden) * head.scale
    return logits if head.cap is None else torch.tanh(logits / head.cap) * head.cap


@CHANGES
@pytest.mark.parametrize("n", [0, 1, 11])
def test_loss_and_gradients_are_those_of_all_logits(chunks, n, changes):
    head, hidden, targets, weights = given(n, torch.float64, changes)
    loss, losses, hits = chunked_cross_entropy(head, hidden, targets, weights)
    ours = torch.autograd.grad(3 * loss, [hidden, head.weight])
    logits = all_logits(head, hidden)
    plain = cross_entropy(logits, targets, reduction="none")
    theirs = torch.autograd.grad(3 * (plain * weights).sum(), [hidden, head.weight])
    torch.testing.assert_close(loss, (plain * weights).sum())
    torch.testing.assert_close(losses, plain)
    assert hits.tolist() == (logits.argmax(-1) == targets).tolist()
    torch.testing.assert_close(ours, theirs)


def test_a_frozen_head_gets_no_gradient_and_passes_one_on(chunks):
    head, hidden, targets, weights = given(7, torch.float64)
    head.linear.requires_grad_(False)
    chunked_cross_entropy(head, hidden, targets, weights)[0].backward()
    expected = torch.autograd.grad(
        (cross_entropy(head.linear(hidden), targets, reduction="none") * weights).sum(), hidden
    )
    assert head.weight.grad is None
    torch.testing.assert_close(hidden.grad, *expected)


@CHANGES
def test_a_head_that_is_more_than_a_matrix_is_left_to_autograd(changes):
    head, hidden, targets, weights = given(7, torch.float64, changes)
    longer = Head(torch.nn.Sequential(head.linear, torch.nn.Identity()), **changes)
    ours = torch.autograd.grad(chunked_cross_entropy(longer, hidden, targets, weights)[0], [hidden, head.weight])
    torch.testing.assert_close(
        ours, torch.autograd.grad(chunked_cross_entropy(head, hidden, targets, weights)[0], [hidden, head.weight])
    )


def mixed_loss(head, hidden, targets, weights):
    """Loss, losses, and gradients of the hidden states and the head, in mixed precision."""
    with torch.autocast("cpu", torch.bfloat16):
        loss, losses, _ = chunked_cross_entropy(head, hidden, targets, weights)
        return loss, losses, torch.autograd.grad(loss, [hidden, head.weight])


def test_in_mixed_precision_the_logits_of_a_large_head_are_made_in_the_low_one_and_summed_in_the_high_one(
    chunks, monkeypatch
):
    monkeypatch.setattr(head_module, "MOST_FLOAT32", 0)
    head, hidden, targets, weights = given(40, torch.float32)
    loss, losses, ours = mixed_loss(head, hidden, targets, weights)
    assert losses.dtype == torch.float32 and all(g.dtype == torch.float32 for g in ours)
    logits = torch.nn.functional.linear(hidden.bfloat16(), head.weight.bfloat16()).float()
    plain = (cross_entropy(logits, targets, reduction="none") * weights).sum()
    torch.testing.assert_close(loss, plain)
    for a, b in zip(ours, torch.autograd.grad(plain, [hidden, head.weight]), strict=True):
        torch.testing.assert_close(a, b, rtol=0.03, atol=0.03)


def test_in_mixed_precision_loss_and_gradients_of_a_small_head_are_not_rounded(chunks):
    head, hidden, targets, weights = given(40, torch.float32)
    loss, losses, ours = mixed_loss(head, hidden, targets, weights)
    plain = cross_entropy(all_logits(head, hidden), targets, reduction="none")
    torch.testing.assert_close(losses, plain.detach())
    torch.testing.assert_close(loss, (plain * weights).sum())
    torch.testing.assert_close(ours, torch.autograd.grad((plain * weights).sum(), [hidden, head.weight]))


def test_a_second_backward_pass_is_an_error_and_not_another_gradient():
    head, hidden, targets, weights = given(7, torch.float64)
    loss = chunked_cross_entropy(head, hidden, targets, weights)[0]
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2 * loss).backward()


@CHANGES
def test_log_probabilities_are_those_of_all_logits(chunks, changes):
    head, hidden, targets, _ = given(11, torch.float64, changes)
    log_probs, hits = target_log_probs(head, hidden, targets)
    expected = all_logits(head, hidden).log_softmax(-1)
    torch.testing.assert_close(log_probs, expected.gather(1, targets[:, None])[:, 0].detach())
    assert hits.tolist() == (expected.argmax(-1) == targets).tolist()


def test_logits_are_not_rounded_to_16_bits_except_those_of_many_weights_in_16_bits(monkeypatch):
    head, hidden, _, _ = given(11, torch.float32)
    hidden, narrow = hidden.detach().bfloat16(), Head(torch.nn.Linear(16, 50, bias=True, dtype=torch.bfloat16))
    for each in (head, narrow):
        bias = 0 if each.linear.bias is None else each.linear.bias.double()
        expected = hidden.double() @ each.weight.double().T + bias
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(each.logits(hidden).double(), expected, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(each.logits(hidden, [3, 7]).double(), expected[:, [3, 7]], rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(head_module, "MOST_FLOAT32", 2 * 16)
    rounded = narrow.logits(hidden)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, rounded.bfloat16().float())
    torch.testing.assert_close(narrow.logits(hidden, [3, 7]).double(), expected[:, [3, 7]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("most", [0, head_module.MOST_FLOAT32], ids=["large head", "small head"])
def test_small_gradients_in_float16_are_not_lost(most, monkeypatch):
    monkeypatch.setattr(head_module, "MOST_FLOAT32", most)
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 40, bias=False)
    hidden, targets, weights = torch.randn(6, 8, requires_grad=True), torch.arange(6), torch.full((6,), 1e-6)
    expected = torch.autograd.grad((cross_entropy(linear(hidden), targets, reduction="none") * weights).sum(), hidden)
    narrow = hidden.detach().half().requires_grad_()
    with torch.autocast("cpu", torch.float16):
        loss, *_ = chunked_cross_entropy(Head(linear), narrow, targets, weights)
    (found,) = torch.autograd.grad(loss * 2**12, narrow)
    torch.testing.assert_close(found.float() / 2**12, expected[0], rtol=2e-2, atol=1e-8)
