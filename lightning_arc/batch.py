"""Tree batches: token trees as padded tensors, the one thing that the data module and the model share.

Knows tensors of token ids, targets and labels. Knows nothing of grids, prompts, datasets or how a model computes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_arc.prompt.tree import IGNORE, TokenTree


@dataclass(eq=False)
class TreeTensors:
    """One token tree as tensors; ``n`` branches are padded on the right to ``B`` tokens.

    Args:
        prefix: ``(P,)`` ``int32`` token ids.
        prefix_targets: ``(P,)`` ``int32`` trained next tokens, ``IGNORE`` elsewhere.
        tokens: ``(n, B)`` ``int32`` token ids, 0 where padded.
        targets: ``(n, B)`` ``int32`` next tokens, ``IGNORE`` where none is scored.
        weights: ``(n, B)`` ``float32`` loss weights.
        lengths: ``(n,)`` ``int32`` tokens of each branch.
        answers: ``(n,)`` ``int32`` places in the episode's answers, -1 if a branch is about none.
        kinds: ``(n, B)`` ``int32`` values of `Kind`.
        correct: ``(n,)`` ``int32``: 1 right, 0 wrong, -1 unknown.
    """

    prefix: Tensor
    prefix_targets: Tensor
    tokens: Tensor
    targets: Tensor
    weights: Tensor
    lengths: Tensor
    answers: Tensor
    kinds: Tensor
    correct: Tensor

    @classmethod
    def from_tree(cls, tree: TokenTree) -> "TreeTensors":
        """Pad the branches of a token tree to one length."""
        return TreeBatch.collate([tree], 0, 0).trees[0]

    def branches(self, start: int, stop: int) -> "TreeTensors":
        """Return the tree with only the branches from ``start`` to ``stop``, padding trimmed."""
        longest = int(self.lengths[start:stop].max())
        rows = {name: getattr(self, name)[start:stop] for name in ("lengths", "correct", "answers")}
        cells = {name: getattr(self, name)[start:stop, :longest] for name in ("tokens", "targets", "kinds", "weights")}
        return replace(self, **rows, **cells)


@dataclass(eq=False)
class TreeBatch:
    """Several trees that go through the model in one step.

    All their numbers lie in one buffer, which goes to another process or to a device in one piece; `trees` are views
    of it.

    Args:
        buffer: ``(words,)`` ``int32``, the trees' tensors one after the other.
        sizes: by tree, the tokens of its prefix, its branches, and the tokens of its longest branch.
        n_tokens: tokens of all prefixes, and of all branches without padding.
        yes_id: token id of the verdict "right".
        no_id: token id of the verdict "wrong".
        choice_ids: token ids of the options "1", "2" and so on.
        info: one plain dict per tree that the model hands through untouched (pair key, view, votes).
        stats: means over the batch's samples that are logged, by name.
    """

    buffer: Tensor
    sizes: list[tuple[int, int, int]]
    n_tokens: tuple[int, int]
    yes_id: int
    no_id: int
    choice_ids: list[int] = field(default_factory=list)
    info: list[dict[str, Any]] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)

    @classmethod
    def collate(
        cls,
        trees: Sequence[TokenTree],
        yes_id: int,
        no_id: int,
        choice_ids: Sequence[int] = (),
        info: Sequence[dict[str, Any]] = (),
        stats: Mapping[str, float] | None = None,
    ) -> "TreeBatch":
        """Make a batch of token trees."""
        sizes = [(len(t.prefix), len(t.branches), max(len(b.tokens) for b in t.branches)) for t in trees]
        buffer = np.zeros(sum(prod(shape) for size in sizes for shape in _shapes(*size)), np.int32)
        for tree, arrays in zip(trees, _cut(buffer, sizes, np.float32), strict=True):
            _fill(tree, *(array.reshape(shape) for array, shape in arrays))
        n_tokens = sum(len(t.prefix) for t in trees), sum(len(b.tokens) for t in trees for b in t.branches)
        made = list(info) or [{} for _ in trees]
        return cls(torch.from_numpy(buffer), sizes, n_tokens, yes_id, no_id, list(choice_ids), made, dict(stats or {}))

    @cached_property
    def trees(self) -> list[TreeTensors]:
        """The trees, as views of the buffer."""
        cut = _cut(self.buffer, self.sizes, torch.float32)
        return [TreeTensors(*(array.view(shape) for array, shape in arrays)) for arrays in cut]

    def __getstate__(self) -> dict[str, Any]:
        # As an array it goes through a pipe, which for buffers of this size is faster than torch's shared memory.
        return {name: value for name, value in self.__dict__.items() if name != "trees"} | {
            "buffer": self.buffer.numpy(force=True)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"buffer": torch.from_numpy(state["buffer"])})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TreeBatch":
        """Return the batch with its tensors on ``device``."""
        return replace(self, buffer=self.buffer.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TreeBatch":
        """Return the batch with its tensors in page-locked memory."""
        return replace(self, buffer=self.buffer.pin_memory())


def _shapes(prefix: int, n: int, longest: int) -> tuple[tuple[int, ...], ...]:
    """Return the shape of each tensor of a tree, in the order of `TreeTensors`."""
    return ((prefix,),) * 2 + ((n, longest),) * 3 + ((n,),) * 2 + ((n, longest), (n,))


def _cut(buffer: Any, sizes: Sequence[tuple[int, int, int]], number: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Cut a buffer into each tree's tensors with their shapes; the weights are of the type ``number``."""
    stop = 0
    for size in sizes:
        arrays = []
        for i, shape in enumerate(_shapes(*size)):
            start, stop = stop, stop + prod(shape)
            arrays.append((buffer[start:stop].view(number) if i == _WEIGHTS else buffer[start:stop], shape))
        yield arrays


_WEIGHTS = [f.name for f in fields(TreeTensors)].index("weights")


def _fill(tree: TokenTree, *arrays: NDArray[Any]) -> None:
    prefix, prefix_targets, tokens, targets, weights, lengths, answers, kinds, correct = arrays
    prefix[:], prefix_targets[:] = tree.prefix, tree.prefix_targets
    targets.fill(IGNORE)
    for i, branch in enumerate(tree.branches):
        n = len(branch.tokens)
        tokens[i, :n], targets[i, :n] = branch.tokens, branch.targets
        weights[i, :n], kinds[i, :n] = branch.weights, branch.kinds
        lengths[i], answers[i] = n, branch.answer
        correct[i] = -1 if branch.correct is None else branch.correct
