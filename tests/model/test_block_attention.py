"""Attention by blocks: the same as by the mask of a whole pack, in values and gradients."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from lightning_arc.data.batch import Piece
from lightning_arc.model.attention.blocks import block_attention, blocks
from lightning_arc.model.attention.cascade import cascade

PACKS = {
    "one token": [Piece(0, 1, (1,), 0)],
    "a prefix of several blocks": [Piece(0, 700, (1,), 0)],
    "branches of all lengths": [Piece(0, 300, (20, 70, 150, 3, 1), 0)],
    "a branch of several blocks": [Piece(0, 40, (5, 600, 2), 0)],
    "trees after each other": [
        Piece(0, 5, (1,), 0),
        Piece(1, 130, (64, 64), 1),
        Piece(2, 256, (256,), 3),
    ],
    "a held prefix": [Piece(0, 200, (33, 260, 7), 0, held=True)],
}


def mask(pieces) -> torch.Tensor:
    """Who sees whom, a token at a time; held keys come first."""
    held = pieces[0].prefix if pieces[0].held else 0
    n = sum(piece.n_tokens for piece in pieces)
    sees, start = torch.zeros(n, held + n, dtype=torch.bool), 0
    sees[:, :held] = True
    for piece in pieces:
        prefix = 0 if piece.held else piece.prefix
        end = start + piece.n_tokens
        sees[start:end, held + start : held + start + prefix] = True
        branch = start + prefix
        for length in piece.branches:
            sees[branch : branch + length, held + branch : held + branch + length] = True
            branch += length
        start = end
    return sees & (torch.arange(held + n) - held <= torch.arange(n)[:, None])


def drawn(pieces, groups, dtype) -> list[torch.Tensor]:
    held = pieces[0].prefix if pieces[0].held else 0
    n = sum(piece.n_tokens for piece in pieces)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, n, 2 * groups, 16), (1, held + n, 2, 16), (1, held + n, 2, 16)]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).transpose(1, 2) for shape in shapes]
    return [x.requires_grad_() for x in made]


@pytest.mark.parametrize("groups", [1, 2, 7])
@pytest.mark.parametrize("name", PACKS)
def test_values_and_gradients_are_those_of_a_mask(name, groups):
    pieces = PACKS[name]
    query, key, value = drawn(pieces, groups, torch.float64)
    cut = blocks(pieces, 2 * groups, torch.float64)
    ours = block_attention(query, key, value, cut, 0.3)
    plain = scaled_dot_product_attention(query, key, value, mask(pieces), scale=0.3, enable_gqa=True)
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
    pieces = PACKS[name]
    exact = [x.detach().double().requires_grad_() for x in drawn(pieces, 2, torch.bfloat16)]
    short = drawn(pieces, 2, torch.bfloat16)
    cut = blocks(pieces, 4, torch.bfloat16)

    def with_gradients(out, inputs):
        return [out, *torch.autograd.grad(out.sum(), inputs)]

    truth = with_gradients(cascade(*exact, pieces, None), exact)
    ours = with_gradients(block_attention(*short, cut, None), short)
    other = with_gradients(cascade(*short, pieces, None), short)
    for found, rival, expected in zip(ours, other, truth, strict=True):
        scale = expected.norm()
        mistake, rival_mistake = ((x.double() - expected).norm() / scale for x in (found, rival))
        assert mistake < max(2 * rival_mistake, 0.01)
