"""Trees of random tokens, small models, and their scores of separate sequences."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_arc.data.batch import TreeBatch
from lightning_arc.model.batch_loss import batch_loss
from lightning_arc.model.load import Scratch
from lightning_arc.model.tree_forward import batch_hidden
from lightning_arc.prompt.tree import IGNORE, Branch, PromptKind, TokenTree

SIZE = Scratch(hidden_size=32, layers=3, heads=4, kv_heads=2, intermediate_size=48)
YES, NO = 3, 4
IDS = torch.arange(12)[None]


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


WAYS = ("cascade", "blocks", "mask", "flex")
TREES = [random_tree(0), random_tree(1, n=2, prefix=5), selections(2), random_tree(3, n=9, prefix=140, longest=40)]
CHOICES = (14, 15)


def collated(trees, max_tokens=None, training=False):
    return TreeBatch.collate(trees, YES, NO, CHOICES, max_tokens=max_tokens, training=training)


def check_hidden_states(model, plain, trees, max_tokens, backend):
    """Compare the logits of packs with those of every branch behind its prefix as a sequence of its own."""
    head, seen = model.get_output_embeddings(), set()
    branches = [(tree, i) for tree in trees for i in range(len(tree.branches))]
    for pack, hidden in batch_hidden(model.get_decoder(), collated(trees, max_tokens), backend):
        logits, start = head(hidden), 0
        for segment in pack.segments:
            before = 0 if segment.prefix_cached else segment.prefix
            at_prefix = logits[start : start + before]
            start += before
            for number, length in enumerate(segment.branches, segment.first):
                whole = separate_logits(plain, *branches[number])
                torch.testing.assert_close(at_prefix, whole[:before], rtol=1e-7, atol=1e-7)
                torch.testing.assert_close(
                    logits[start : start + length], whole[segment.prefix :], rtol=1e-7, atol=1e-7
                )
                start += length
                seen.add(number)
    assert seen == set(range(len(branches)))


def loss_of_sequences(model, trees, weights):
    """The plain way: every branch as a sequence of its own, and per kind the weighted mean of all targets."""
    sums = {kind: [0.0, 0.0] for kind in PromptKind}
    for tree in trees:
        for i, branch in enumerate(tree.branches):
            logits = separate_logits(model, tree, i)
            targets = torch.from_numpy(np.concatenate([tree.prefix_targets, branch.targets]).astype(np.int64))
            in_prefix = (tree.prefix_targets != IGNORE) * float(i == 0)
            own = torch.from_numpy(np.concatenate([in_prefix, branch.weights]))
            kinds = torch.from_numpy(np.concatenate([np.zeros(len(tree.prefix)), branch.kinds]))
            losses = cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")
            for kind, total in sums.items():
                weight = own * (kinds == kind) * (targets != IGNORE)
                total[0] = total[0] + (losses * weight).sum()
                total[1] = total[1] + weight.sum()
    return sum(weights.get(kind.label, 1.0) * a / b for kind, (a, b) in sums.items() if b > 0)


def disturb(weights: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in weights.values():
        p.data += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@dataclass
class Trees:
    """A test-time dataset of random trees, which counts its batches."""

    seed: int
    name: str = "task"
    n_batches: int = 0
    empty: bool = False

    def batch(self, number: int, n_trees: int) -> TreeBatch | None:
        self.n_batches += 1
        if self.empty:
            return None
        trees = [random_tree(1000 * self.seed + (number * n_trees + i) % 3) for i in range(n_trees)]
        return TreeBatch.collate(trees, YES, NO, training=True)
