"""Tree batches: token trees as padded tensors, the one thing that the data module and the model share.

Knows tensors of token ids, targets and labels. Knows nothing of grids, prompts, datasets or how a model computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_arc.prompt.tree import IGNORE, TokenTree


@dataclass(eq=False)
class TreeTensors:
    """One token tree as tensors; ``n`` branches are padded on the right to ``B`` tokens.

    Args:
        prefix: ``(P,)`` ``int64`` token ids.
        prefix_targets: ``(P,)`` ``int64`` trained next tokens, ``IGNORE`` elsewhere.
        tokens: ``(n, B)`` ``int64`` token ids, 0 where padded.
        targets: ``(n, B)`` ``int64`` next tokens, ``IGNORE`` where none is scored.
        kinds: ``(n, B)`` ``int64`` values of `Kind`.
        weights: ``(n, B)`` ``float32`` loss weights.
        lengths: ``(n,)`` ``int64`` tokens of each branch.
        correct: ``(n,)`` ``int8``: 1 right, 0 wrong, -1 unknown.
        answers: ``(n,)`` ``int64`` places in the episode's answers, -1 if a branch is about none.
    """

    prefix: Tensor
    prefix_targets: Tensor
    tokens: Tensor
    targets: Tensor
    kinds: Tensor
    weights: Tensor
    lengths: Tensor
    correct: Tensor
    answers: Tensor

    @classmethod
    def from_tree(cls, tree: TokenTree) -> "TreeTensors":
        """Pad the branches of a token tree to one length."""
        n, longest = len(tree.branches), max(len(b.tokens) for b in tree.branches)
        shape = (n, longest)
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        kinds, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for i, branch in enumerate(tree.branches):
            length = len(branch.tokens)
            tokens[i, :length], targets[i, :length] = branch.tokens, branch.targets
            kinds[i, :length], weights[i, :length] = branch.kinds, branch.weights
        return cls(
            prefix=torch.from_numpy(tree.prefix.astype(np.int64)),
            prefix_targets=torch.from_numpy(tree.prefix_targets.astype(np.int64)),
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            kinds=torch.from_numpy(kinds),
            weights=torch.from_numpy(weights),
            lengths=torch.tensor([len(b.tokens) for b in tree.branches]),
            correct=torch.tensor(
                [-1 if b.correct is None else int(b.correct) for b in tree.branches], dtype=torch.int8
            ),
            answers=torch.tensor([b.answer for b in tree.branches]),
        )

    def branches(self, start: int, stop: int) -> "TreeTensors":
        """Return the tree with only the branches from ``start`` to ``stop``, padding trimmed."""
        longest = int(self.lengths[start:stop].max())
        rows = {name: getattr(self, name)[start:stop] for name in ("lengths", "correct", "answers")}
        cells = {name: getattr(self, name)[start:stop, :longest] for name in ("tokens", "targets", "kinds", "weights")}
        return replace(self, **rows, **cells)

    def _map(self, function: Any) -> "TreeTensors":
        return TreeTensors(**{f.name: function(getattr(self, f.name)) for f in fields(self)})


@dataclass(eq=False)
class TreeBatch:
    """Several trees that go through the model in one step.

    Args:
        trees: the trees.
        yes_id: token id of the verdict "right".
        no_id: token id of the verdict "wrong".
        choice_ids: token ids of the options "1", "2" and so on.
        skipped: how many draws were passed over for this batch because they were longer than ``max_seq_len``.
        info: one plain dict per tree that the model hands through untouched (pair key, view, votes).
    """

    trees: list[TreeTensors]
    yes_id: int
    no_id: int
    choice_ids: list[int] = field(default_factory=list)
    skipped: int = 0
    info: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def collate(
        cls,
        trees: Sequence[TokenTree],
        yes_id: int,
        no_id: int,
        choice_ids: Sequence[int] = (),
        skipped: int = 0,
        info: Sequence[dict[str, Any]] = (),
    ) -> "TreeBatch":
        """Make a batch of token trees."""
        tensors = [TreeTensors.from_tree(tree) for tree in trees]
        return cls(tensors, yes_id, no_id, list(choice_ids), skipped, list(info) or [{} for _ in trees])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TreeBatch":
        """Return the batch with its tensors on ``device``."""
        return replace(self, trees=[t._map(lambda x: x.to(device, non_blocking=non_blocking)) for t in self.trees])

    def pin_memory(self) -> "TreeBatch":
        """Return the batch with its tensors in page-locked memory."""
        return replace(self, trees=[t._map(Tensor.pin_memory) for t in self.trees])

    @property
    def n_tokens(self) -> tuple[int, int]:
        """Tokens of all prefixes, and of all branches without padding."""
        return sum(len(t.prefix) for t in self.trees), sum(int(t.lengths.sum()) for t in self.trees)
