"""Trees of random tokens, small models, and what they say of separate sequences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_arc.model.batch_loss import batch_loss
from lightning_arc.model.load import Scratch, new_model
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.tree import IGNORE, Branch, PromptKind, TokenTree

SIZE = Scratch(hidden_size=32, layers=3, heads=4, kv_heads=2, intermediate_size=48)
YES, NO = 3, 4


def random_tree(seed: int, n: int = 4, prefix: int = 11, longest: int = 8) -> TokenTree:
    """A tree of ragged branches that write and are judged; the first is right."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(84, size=prefix).astype(np.int32)
    branches = []
    for i in range(n):
        own = rng.integers(84, size=int(rng.integers(3, longest + 1))).astype(np.int32)
        targets = np.append(own[1:], YES if i == 0 else NO).astype(np.int32)
        targets[-2] = IGNORE
        kinds = np.full(len(own), PromptKind.OUTPUT_FROM_EXAMPLES, np.int8)
        kinds[-1] = PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES
        weights = np.full(len(own), float(i == 0), np.float32)
        weights[-1] = 0.5 if i == 0 else 0.5 / (n - 1)
        branches.append(Branch(own, targets, kinds, weights, i, i == 0))
    prefix_targets = np.full(prefix, IGNORE, np.int32)
    prefix_targets[1:3] = tokens[2:4]
    return TokenTree(tokens, prefix_targets, tuple(branches))


def selections(seed: int, n: int = 3, options: int = 2) -> TokenTree:
    """A tree whose branches ask which of several options is right."""
    rng = np.random.default_rng(seed)
    branches = []
    for _ in range(n):
        own = rng.integers(84, size=options * 4 + 1).astype(np.int32)
        targets = np.full(len(own), IGNORE, np.int32)
        targets[-1] = 13 + int(rng.integers(options))
        kinds = np.full(len(own), PromptKind.SELECT_OUTPUT_FROM_EXAMPLES, np.int8)
        branches.append(Branch(own, targets, kinds, np.full(len(own), 1 / n, np.float32)))
    tokens = rng.integers(84, size=9).astype(np.int32)
    return TokenTree(tokens, np.full(9, IGNORE, np.int32), tuple(branches))


def separate_logits(model: torch.nn.Module, tree: TokenTree, i: int) -> torch.Tensor:
    """The plain way: a branch behind its prefix as a sequence of its own, through the library's own attention."""
    ids = np.concatenate([tree.prefix, tree.branches[i].tokens])
    given = {"input_ids": torch.from_numpy(ids.astype(np.int64))[None]}
    if tree.positions is not None:
        positions = np.concatenate([tree.positions, tree.branches[i].positions])
        given["position_ids"] = torch.from_numpy(positions.T.astype(np.int64))[:, None]
    return model(**given).logits[0]


def placed(tree: TokenTree, seed: int) -> TokenTree:
    """A tree whose tokens have random grid positions."""
    rng = np.random.default_rng(seed)

    def drawn(n: int) -> np.ndarray:
        return rng.integers(31, size=(n, 3)).astype(np.int32)

    branches = tuple(replace(branch, positions=drawn(len(branch.tokens))) for branch in tree.branches)
    return replace(tree, positions=drawn(len(tree.prefix)), branches=branches)


def loss(model, batch, trained):
    """The loss of test-time training, all kinds of prompts alike."""
    return batch_loss(model, batch, trained, torch.ones(len(PromptKind)))[0]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return new_model(SIZE, compact_tokenizer()).double()
