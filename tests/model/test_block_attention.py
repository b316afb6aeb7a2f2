"""Attention by blocks: the same as by the mask of a whole pack, in values and gradients."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from lightning_arc.data.batch import PackSegment
from lightning_arc.model.attention.blocks import block_attention, blocks
from lightning_arc.model.attention.cascade import cascade

PACKS = {
    "one token": [PackSegment(0, 1, (1,), 0)],
    "a prefix of several blocks": [PackSegment(0, 700, (1,), 0)],
    "branches of all lengths": [PackSegment(0, 300, (20, 70, 150, 3, 1), 0)],
    "a branch of several blocks": [PackSegment(0, 40, (5, 600, 2), 0)],
    "trees after each other": [
        PackSegment(0, 5, (1,), 0),
        PackSegment(1, 130, (64, 64), 1),
        PackSegment(2, 256, (256,), 3),
    ],
    "a held prefix": [PackSegment(0, 200, (33, 260, 7), 0, prefix_cached=True)],
}


def mask(segments) -> torch.Tensor:
    """Who sees whom, a token at a time; held keys come first."""
    n_cached = segments[0].prefix if segments[0].prefix_cached else 0
    n = sum(segment.n_tokens for segment in segments)
    sees, start = torch.zeros(n, n_cached + n, dtype=torch.bool), 0
    sees[:, :n_cached] = True
    for segment in segments:
        prefix = 0 if segment.prefix_cached else segment.prefix
        end = start + segment.n_tokens
        sees[start:end, n_cached + start : n_cached + start + prefix] = True
        branch = start + prefix
        for length in segment.branches:
            sees[branch : branch + length, n_cached + branch : n_cached + branch + length] = True
            branch += length
        start = end
    return sees & (torch.arange(n_cached + n) - n_cached <= torch.arange(n)[:, None])


def drawn(segments, groups, dtype) -> list[torch.Tensor]:
    n_cached = segments[0].prefix if segments[0].prefix_cached else 0
    n = sum(segment.n_tokens for segment in segments)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, n, 2 * groups, 16), (1, n_cached + n, 2, 16), (1, n_cached + n, 2, 16)]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).transpose(1, 2) for shape in shapes]
    return [x.requires_grad_() for x in made]


@pytest.mark.parametrize("groups", [1, 2, 7])
@pytest.mark.parametrize("name", PACKS)
def test_values_and_gradients_are_those_of_a_mask(name, groups):
    segments = PACKS[name]
    query, key, value = drawn(segments, groups, torch.float64)
    cut = blocks(segments, 2 * groups, torch.float64)
    ours = block_attention(query, key, value, cut, 0.3)
    plain = scaled_dot_product_attention(query, key, value, mask(segments), scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    outer = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(
        torch.autograd.grad(ours, (query, key, value), outer),
        torch.autograd.grad(plain, (query, key, value), outer),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", PACKS)
def test_in_16_bits_it_is_as_near_to_exact_as_the_other_way(name):
    segments = PACKS[name]
    exact = [x.detach().double().requires_grad_() for x in drawn(segments, 2, torch.bfloat16)]
    short = drawn(segments, 2, torch.bfloat16)
    cut = blocks(segments, 4, torch.bfloat16)

    def with_gradients(out, inputs):
        return [out, *torch.autograd.grad(out.sum(), inputs)]

    truth = with_gradients(cascade(*exact, segments, None), exact)
    ours = with_gradients(block_attention(*short, cut, None), short)
    other = with_gradients(cascade(*short, segments, None), short)
    for found, rival, expected in zip(ours, other, truth, strict=True):
        scale = expected.norm()
        mistake, rival_mistake = ((x.double() - expected).norm() / scale for x in (found, rival))
        assert mistake < max(2 * rival_mistake, 0.01)
