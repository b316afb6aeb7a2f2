"""Tree batches: packs in one buffer, in which every tree lies whole and every target beside its place."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.plugins.precision import HalfPrecision

from lightning_arc.arc import Episode, LabeledCandidate, Pair, PairKey, as_grid
from lightning_arc.data.batch import Pack, TreeBatch, TreeShape, pack
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tree import IGNORE, PromptKind

RNG = np.random.default_rng(0)
PROMPTER = PromptEncoder(compact_tokenizer())
TREES = []
for n_answers in (1, 4, 2):
    grids = [as_grid(RNG.integers(10, size=RNG.integers(1, 7, 2))) for _ in range(n_answers + 4)]
    answers = tuple(LabeledCandidate(grid, i == 0, i) for i, grid in enumerate(grids[4:]))
    episode = Episode(PairKey("t", "test", 0), (Pair(*grids[:2]), Pair(*grids[2:4])), grids[0], grids[1], answers)
    TREES.append(PROMPTER.tree(episode, "verify-output-from-examples-v1", learn_demonstrations=True))
LONGEST = max(len(t.prefix) + sum(len(b.tokens) for b in t.branches) for t in TREES)


def sequences(packs: list[Pack]) -> dict[int, list[int]]:
    """Every branch's whole sequence by its number, read from who sees whom and the positions in the packs."""
    found, cached = {}, []
    for one in packs:
        assert one.n_cached == 0 or len(cached) == one.n_cached
        tokens, positions, visible_until, start, branch = (
            *(x.tolist() for x in (one.tokens, one.positions, one.visible_until)),
            0,
            0,
        )
        for segment in one.segments:
            if not segment.prefix_cached:
                cached = tokens[start : start + segment.prefix]
                assert positions[start : start + segment.prefix] == list(range(segment.prefix))
                assert set(visible_until[start : start + segment.prefix]) == {start + segment.n_tokens}
                start += segment.prefix
            assert len(cached) == segment.prefix
            for branch, length in enumerate(segment.branches, segment.first):
                own = slice(start, start + length)
                assert positions[own] == list(range(segment.prefix, segment.prefix + length))
                assert set(visible_until[own]) == {start + length}
                assert branch not in found
                found[branch] = cached + tokens[own]
                start += length
        assert start == len(tokens)
    return found


def targets(batch: TreeBatch) -> list[tuple]:
    """Every target as its branch (-1 in a prefix), position, token, kind and weight."""
    found = []
    for one in batch.packs:
        columns = one.branch_ids, one.positions[one.places], one.targets, one.kinds, one.weights
        found += zip(*(x.tolist() for x in columns), strict=True)
    return sorted(found)


def expected(trees, training: bool) -> list[tuple]:
    found, number = [], 0
    for tree in trees:
        for place, target in enumerate(tree.prefix_targets.tolist() if training else ()):
            if target != IGNORE:
                found.append((-1, place, target, int(PromptKind.OUTPUT_FROM_EXAMPLES), 1.0))
        for branch in tree.branches:
            columns = branch.targets.tolist(), branch.kinds.tolist(), branch.weights.tolist()
            for place, (target, kind, weight) in enumerate(zip(*columns, strict=True)):
                if target != IGNORE and (weight > 0 or not training):
                    found.append((number, len(tree.prefix) + place, target, kind, weight))
            number += 1
    return sorted(found)


@pytest.mark.parametrize("max_tokens", [None, LONGEST, LONGEST * 2, 90, 1])
@pytest.mark.parametrize("training", [False, True])
def test_packs_hold_every_branch_and_target_of_every_tree(max_tokens, training):
    batch = TreeBatch.collate(TREES, 3, 4, (5, 6), max_tokens=max_tokens, training=training)
    found = sequences(batch.packs)
    branches = [np.concatenate([t.prefix, b.tokens]).tolist() for t in TREES for b in t.branches]
    assert [found[i] for i in range(len(branches))] == branches
    assert targets(batch) == expected(TREES, training)
    assert batch.n_tokens == (sum(len(t.prefix) for t in TREES), sum(len(b.tokens) for t in TREES for b in t.branches))
    prefix_cached = [segment.prefix_cached for one in batch.packs for segment in one.segments]
    assert any(prefix_cached) == (not training and max_tokens is not None and max_tokens < LONGEST)


shapes = st.builds(
    lambda prefix, branches: TreeShape(prefix, tuple(branches), (-1,), (-1,), PromptKind.OUTPUT_FROM_EXAMPLES),
    st.integers(1, 50),
    st.lists(st.integers(1, 40), min_size=1, max_size=9),
)


@given(trees=st.lists(shapes, max_size=8), max_tokens=st.integers(1, 200), cache_prefix=st.booleans())
def test_no_pack_is_longer_than_allowed_unless_one_branch_is(trees, max_tokens, cache_prefix):
    packs = pack(trees, max_tokens, cache_prefix)
    for segments in packs:
        tokens = sum(segment.n_tokens for segment in segments)
        assert tokens <= max_tokens or (len(segments) == 1 and len(segments[0].branches) == 1)
        assert len(segments) == 1 or not any(segment.prefix_cached for segment in segments)
    for i, shape in enumerate(trees):
        parts = [segment for segments in packs for segment in segments if segment.tree == i]
        assert sum((part.branches for part in parts), ()) == shape.branches
        assert [part.prefix_cached for part in parts] == [cache_prefix and n > 0 for n in range(len(parts))]
        assert all(part.prefix == shape.prefix for part in parts)
    places = [n for n, segments in enumerate(packs) for segment in segments if segment.prefix_cached]
    assert all(packs[n - 1][-1].tree == packs[n][0].tree for n in places)


def test_what_trees_are_about_stays_beside_them():
    batch = TreeBatch.collate(TREES, 3, 4, (5, 6), info=[{"n": i} for i in range(3)], stats={"share": 0.5})
    for i, (shape, tree) in enumerate(zip(batch.shapes, TREES, strict=True)):
        assert shape.answers == tuple(b.answer for b in tree.branches)
        assert shape.correct == tuple(int(b.correct) for b in tree.branches)
        assert batch.rows(i).stop - batch.rows(i).start == len(tree.branches)
    assert (batch.yes_id, batch.no_id, batch.choice_ids) == (3, 4, [5, 6])
    assert batch.info == [{"n": 0}, {"n": 1}, {"n": 2}] and batch.stats == {"share": 0.5}
    assert batch.kinds == (PromptKind.OUTPUT_FROM_EXAMPLES, PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES)


def test_a_tree_with_one_branch_is_a_sequence():
    trees = [replace(tree, branches=tree.branches[:1]) for tree in TREES]
    batch = TreeBatch.collate(trees, 3, 4)
    for i, tree in enumerate(trees):
        assert batch.sequence(i)[0].tolist() == [*tree.prefix.tolist(), *tree.branches[0].tokens.tolist()]


def test_a_batch_goes_to_another_process_and_device_in_one_piece():
    batch = TreeBatch.collate(TREES, 3, 4)
    assert batch.packs  # views that have been made do not go along
    assert len(pickle.dumps(batch)) < batch.buffer.numel() * 4 + 3000
    for other in (pickle.loads(pickle.dumps(batch)), batch.to("cpu"), batch.to(torch.device("meta")).to("meta")):
        for ours, theirs in zip(batch.packs, other.packs, strict=True):
            tensors = [x for x in vars(theirs).values() if isinstance(x, torch.Tensor)]
            assert len({x.untyped_storage().data_ptr() for x in tensors}) == 1
            assert [x.shape for x in tensors] == [x.shape for x in vars(ours).values() if isinstance(x, torch.Tensor)]
    assert targets(pickle.loads(pickle.dumps(batch))) == targets(batch)


def test_a_batch_stays_as_it_is_where_weights_are_in_bfloat16():
    key = PairKey("a", "test", 0)
    batch = TreeBatch.collate(TREES[:1], 3, 4, info=[{"key": key}])
    found = HalfPrecision("bf16-true").convert_input(batch)
    assert found.info[0]["key"] is key and torch.equal(found.buffer, batch.buffer)


def test_a_batch_without_trees_is_a_batch():
    batch = TreeBatch.collate([], 3, 4, max_tokens=10)
    assert batch.packs == [] and batch.n_tokens == (0, 0) and batch.kinds == ()
