"""Token trees as plain data."""

import numpy as np

from lightning_arc.prompt.tree import IGNORE, Branch, PromptKind, TokenTree


def branch(tokens: list[int], targets: list[int]) -> Branch:
    n = len(tokens)
    return Branch(np.array(tokens, np.int32), np.array(targets, np.int32), np.zeros(n, np.int8), np.ones(n, np.float32))


def test_a_sequence_is_prefix_branch_and_last_target():
    tree = TokenTree(
        np.array([1, 2], np.int32),
        np.full(2, IGNORE, np.int32),
        (branch([3, 4], [4, 5]), branch([3, 6, 7], [6, 7, IGNORE])),
    )
    assert tree.sequence(0).tolist() == [1, 2, 3, 4, 5]
    assert tree.sequence(1).tolist() == [1, 2, 3, 6, 7]
    assert tree.longest == 5


def test_a_tree_without_branches_is_as_long_as_its_prefix():
    assert TokenTree(np.arange(4), np.full(4, IGNORE), ()).longest == 4


def test_a_kind_is_labelled_as_in_prompt_names():
    assert PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES.label == "verify-output-from-examples"
