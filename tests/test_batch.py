"""Tree batches: one buffer, and trees as views of it."""

import pickle

import numpy as np
import torch

from lightning_arc.arc import Answer, Episode, Pair, PairKey, as_grid
from lightning_arc.batch import TreeBatch, TreeTensors
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tree import IGNORE

RNG = np.random.default_rng(0)
TREES = []
for n_answers in (1, 4, 2):
    grids = [as_grid(RNG.integers(10, size=RNG.integers(1, 7, 2))) for _ in range(n_answers + 4)]
    answers = tuple(Answer(grid, i == 0, i) for i, grid in enumerate(grids[4:]))
    given = Episode(PairKey("t", "test", 0), (Pair(*grids[:2]), Pair(*grids[2:4])), grids[0], grids[1], answers)
    prompter = Prompter(compact_tokenizer())
    TREES.append(prompter.tree(given, "verify-output-from-examples-v1", learn_demonstrations=True))


def assert_holds(tensors: TreeTensors, tree) -> None:
    assert tensors.prefix.tolist() == tree.prefix.tolist()
    assert tensors.prefix_targets.tolist() == tree.prefix_targets.tolist()
    assert tensors.lengths.tolist() == [len(b.tokens) for b in tree.branches]
    assert tensors.answers.tolist() == [b.answer for b in tree.branches]
    assert tensors.correct.tolist() == [int(b.correct) for b in tree.branches]
    for i, branch in enumerate(tree.branches):
        n = len(branch.tokens)
        for name in ("tokens", "targets", "kinds", "weights"):
            assert getattr(tensors, name)[i, :n].tolist() == getattr(branch, name).tolist()
        assert (tensors.tokens[i, n:] == 0).all() and (tensors.weights[i, n:] == 0).all()
        assert (tensors.targets[i, n:] == IGNORE).all()


def test_a_batch_holds_every_tree_padded_to_its_longest_branch():
    batch = TreeBatch.collate(TREES, 3, 4, (5, 6), info=[{"n": i} for i in range(3)], stats={"share": 0.5})
    for tensors, tree in zip(batch.trees, TREES, strict=True):
        assert_holds(tensors, tree)
        assert tensors.tokens.shape == (len(tree.branches), max(len(b.tokens) for b in tree.branches))
    branches = sum(len(b.tokens) for tree in TREES for b in tree.branches)
    assert batch.n_tokens == (sum(len(tree.prefix) for tree in TREES), branches)
    assert (batch.yes_id, batch.no_id, batch.choice_ids) == (3, 4, [5, 6])
    assert batch.info == [{"n": 0}, {"n": 1}, {"n": 2}] and batch.stats == {"share": 0.5}


def test_a_batch_goes_to_another_process_and_device_in_one_piece():
    batch = TreeBatch.collate(TREES, 3, 4)
    assert batch.trees  # views that have been made do not go along
    assert len(pickle.dumps(batch)) < batch.buffer.numel() * 4 + 2000
    for other in (pickle.loads(pickle.dumps(batch)), batch.to("cpu"), batch.to(torch.device("meta")).to("meta")):
        assert [t.tokens.shape for t in other.trees] == [t.tokens.shape for t in batch.trees]
        for tensors in other.trees:
            pointers = {getattr(tensors, name).untyped_storage().data_ptr() for name in vars(tensors)}
            assert len(pointers) == 1
    for tensors, tree in zip(pickle.loads(pickle.dumps(batch)).trees, TREES, strict=True):
        assert_holds(tensors, tree)


def test_a_batch_without_trees_is_a_batch():
    batch = TreeBatch.collate([], 3, 4)
    assert batch.trees == [] and batch.n_tokens == (0, 0)


def test_some_branches_of_a_tree_are_padded_to_their_own_longest():
    tensors = TreeTensors.from_tree(TREES[1])
    part = tensors.branches(1, 3)
    assert part.prefix is tensors.prefix
    assert part.tokens.shape == (2, int(tensors.lengths[1:3].max()))
    assert part.tokens.tolist() == tensors.tokens[1:3, : part.tokens.shape[1]].tolist()
