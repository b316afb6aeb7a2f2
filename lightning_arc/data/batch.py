"""Tree batches: token trees packed into sequences, the one thing that the data module and the model share.

A pack is one sequence that holds whole trees one after the other, each as its prefix and then its branches, without
padding. One number per token says who attends to it: a token is visible to itself and to later tokens before place
``visible_until``, which is the end of the tree for a prefix's token and the end of the branch for a branch's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_arc.prompt.tree import IGNORE, PromptKind, TokenTree


@dataclass(frozen=True)
class TreeShape:
    """A tree's part of a batch, without tokens.

    Args:
        prefix: tokens of its prefix.
        branches: tokens of each branch.
        answers: place in the episode's answers that each branch is about, -1 if it is about none.
        correct: of each branch 1 where that answer is right, 0 where it is wrong, -1 where that is not known.
        kind: the kind of what its branches write.
    """

    prefix: int
    branches: tuple[int, ...]
    answers: tuple[int, ...]
    correct: tuple[int, ...]
    kind: PromptKind

    @classmethod
    def of(cls, tree: TokenTree) -> "TreeShape":
        """Return the shape of a tree."""
        return cls(
            len(tree.prefix),
            tuple(len(b.tokens) for b in tree.branches),
            tuple(b.answer for b in tree.branches),
            tuple(-1 if b.correct is None else int(b.correct) for b in tree.branches),
            PromptKind(int(tree.branches[0].kinds[0])),
        )

    @property
    def n_tokens(self) -> int:
        """Tokens of prefix and branches."""
        return self.prefix + sum(self.branches)


@dataclass(frozen=True)
class PackSegment:
    """Branches of one tree that lie in one pack, behind the tree's prefix.

    Args:
        tree: number of the tree in the batch.
        prefix: tokens of its prefix.
        branches: tokens of each of these branches.
        first: number of the first of them among all branches of the batch.
        prefix_cached: whether the prefix is not in this pack but in an earlier one, whose keys and values are cached.
    """

    tree: int
    prefix: int
    branches: tuple[int, ...]
    first: int
    prefix_cached: bool = False

    @property
    def n_tokens(self) -> int:
        """Tokens that the segment has in its pack."""
        return (0 if self.prefix_cached else self.prefix) + sum(self.branches)


@dataclass(eq=False)
class Pack:
    """One sequence of ``S`` tokens with ``N`` targets.

    Args:
        segments: its segments, in order. A segment whose prefix is cached is alone in its pack.
        grid_positions: ``(S, 3)`` ``int32`` grid, row and column of each token; ``None`` for sequence positions.
        tokens: ``(S,)`` ``int32`` token ids.
        positions: ``(S,)`` ``int32`` place of each token in its sequence, prefix included.
        visible_until: ``(S,)`` ``int32`` place in the pack before which later tokens attend to a token.
        places: ``(N,)`` ``int32`` places in the pack of the tokens that predict the targets.
        targets: ``(N,)`` ``int32`` next tokens.
        weights: ``(N,)`` ``float32`` loss weights.
        kinds: ``(N,)`` ``int32`` values of `PromptKind`.
        branch_ids: ``(N,)`` ``int32`` number of the branch among all of the batch, -1 for targets within a prefix.
    """

    segments: tuple[PackSegment, ...]
    grid_positions: Tensor | None
    tokens: Tensor
    positions: Tensor
    visible_until: Tensor
    places: Tensor
    targets: Tensor
    weights: Tensor
    kinds: Tensor
    branch_ids: Tensor

    @property
    def n_cached(self) -> int:
        """Tokens of the cached prefix, 0 if there is none."""
        return self.segments[0].prefix if self.segments[0].prefix_cached else 0


_TENSORS = [f.name for f in fields(Pack)][2:]
_BY_TOKEN = ("tokens", "positions", "visible_until")


class TreeBatch:
    """Several trees that go through the model in one step.

    All their numbers lie in one buffer, which goes to another process or to a device in one piece; `packs` are views
    of it. It is no dataclass, because Lightning would cast a dataclass's tensors to the trainer's precision.

    Args:
        buffer: ``(words,)`` ``int32``, the packs' tensors one after the other.
        shapes: one per tree.
        segments: by pack, the segments that lie in it.
        n_targets: by pack.
        kinds: the kinds that targets with a weight have.
        yes_id: token id of the verdict "right".
        no_id: token id of the verdict "wrong".
        choice_ids: token ids of the options "1", "2" and so on.
        info: one plain dict per tree that the model hands through untouched (pair key, view, votes).
        stats: means over the batch's samples that are logged, by name.
        has_grid_positions: whether packs have grid positions.
    """

    def __init__(
        self,
        buffer: Tensor,
        shapes: list[TreeShape],
        segments: list[tuple[PackSegment, ...]],
        n_targets: list[int],
        kinds: tuple[PromptKind, ...],
        yes_id: int,
        no_id: int,
        choice_ids: list[int],
        info: list[dict[str, Any]],
        stats: dict[str, float],
        has_grid_positions: bool = False,
    ) -> None:
        self.buffer, self.shapes, self.segments, self.n_targets, self.kinds = buffer, shapes, segments, n_targets, kinds
        self.yes_id, self.no_id, self.choice_ids, self.info, self.stats = yes_id, no_id, choice_ids, info, stats
        self.has_grid_positions = has_grid_positions

    @classmethod
    def collate(
        cls,
        trees: Sequence[TokenTree],
        yes_id: int,
        no_id: int,
        choice_ids: Sequence[int] = (),
        info: Sequence[dict[str, Any]] = (),
        stats: Mapping[str, float] | None = None,
        max_tokens: int | None = None,
        training: bool = False,
    ) -> "TreeBatch":
        """Make a batch of token trees.

        Args:
            trees: the trees of the batch.
            yes_id: token id of the verdict "right".
            no_id: token id of the verdict "wrong".
            choice_ids: token ids of the options.
            info: one per tree.
            stats: means that are logged, by name.
            max_tokens: most tokens of a pack; a prefix with one branch is taken however long it is. ``None`` packs
                all trees in one.
            training: whether to keep only targets with a weight, and to repeat the prefix of a tree of more than
                `max_tokens` tokens before every part of its branches. Otherwise its prefix is run once and cached.
        """
        shapes = [TreeShape.of(tree) for tree in trees]
        packed = pack(shapes, max_tokens, cache_prefix=not training)
        made = [_arrays(trees, shapes, segments, training) for segments in packed]
        words = [array.reshape(-1).view(np.int32) for arrays in made for array in arrays]
        buffer = torch.from_numpy(np.concatenate(words) if words else np.zeros(0, np.int32))
        n_targets = [len(arrays[-1]) for arrays in made]
        trained = np.concatenate([kinds[weights > 0] for *_, weights, kinds, _ in made] or [np.zeros(0, np.int32)])
        kinds = tuple(map(PromptKind, np.flatnonzero(np.bincount(trained)).tolist()))
        about = list(info) or [{} for _ in trees]
        numbers = yes_id, no_id, list(choice_ids)
        settings = about, dict(stats or {}), _have_grid_positions(trees)
        return cls(buffer, shapes, packed, n_targets, kinds, *numbers, *settings)

    @cached_property
    def packs(self) -> list[Pack]:
        """The packs, as views of the buffer."""
        packs, stop = [], 0
        for segments, n_targets in zip(self.segments, self.n_targets, strict=True):
            n_tokens = sum(segment.n_tokens for segment in segments)
            grid_positions: Tensor | None = None
            if self.has_grid_positions:
                start, stop = stop, stop + 3 * n_tokens
                grid_positions = self.buffer[start:stop].view(-1, 3)
            tensors = []
            for name in _TENSORS:
                start, stop = stop, stop + (n_tokens if name in _BY_TOKEN else n_targets)
                tensor = self.buffer[start:stop]
                tensors.append(tensor.view(torch.float32) if name == "weights" else tensor)
            packs.append(Pack(segments, grid_positions, *tensors))
        return packs

    @property
    def n_tokens(self) -> tuple[int, int]:
        """Tokens of all prefixes, and of all branches."""
        return sum(shape.prefix for shape in self.shapes), sum(sum(shape.branches) for shape in self.shapes)

    def rows(self, i: int) -> slice:
        """Return where the branches of a tree are among those of all trees."""
        before = sum(len(shape.branches) for shape in self.shapes[:i])
        return slice(before, before + len(self.shapes[i].branches))

    def sequence(self, i: int) -> tuple[Tensor, Tensor | None]:
        """Return the ``(n,)`` ``int64`` token ids of a tree with one branch, and its ``(n, 3)`` grid positions."""
        for pack in self.packs:
            start = 0
            for segment in pack.segments:
                if segment.tree == i:
                    own = slice(start, start + segment.n_tokens)
                    return pack.tokens[own].long(), None if pack.grid_positions is None else pack.grid_positions[own]
                start += segment.n_tokens
        raise IndexError(f"no tree {i}")

    def __getstate__(self) -> dict[str, Any]:
        # As an array it goes through a pipe, which for buffers of this size is faster than torch's shared memory.
        return {name: value for name, value in self.__dict__.items() if name != "packs"} | {
            "buffer": self.buffer.numpy(force=True)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"buffer": torch.from_numpy(state["buffer"])})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TreeBatch":
        """Return the batch with its tensors on ``device``."""
        return self._with(self.buffer.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TreeBatch":
        """Return the batch with its tensors in page-locked memory."""
        return self._with(self.buffer.pin_memory())

    def _with(self, buffer: Tensor) -> "TreeBatch":
        about = {name: value for name, value in self.__dict__.items() if name != "packs"}
        return TreeBatch(**about | {"buffer": buffer})


def pack(shapes: Sequence[TreeShape], max_tokens: int | None, cache_prefix: bool) -> list[tuple[PackSegment, ...]]:
    """Assign trees to packs by first-fit decreasing (Johnson, 1973).

    Args:
        shapes: the trees.
        max_tokens: most tokens of a pack, ``None`` for one pack.
        cache_prefix: whether the prefix of a longer tree is cached for the packs of its later branches, else repeated.

    Returns:
        By pack its segments. Packs of one tree follow each other, its branches in order.
    """
    firsts = np.cumsum([0, *(len(shape.branches) for shape in shapes)]).tolist()
    whole = [PackSegment(i, s.prefix, s.branches, firsts[i]) for i, s in enumerate(shapes)]
    if max_tokens is None:
        return [tuple(whole)] if whole else []
    packs: list[tuple[PackSegment, ...]] = []
    room: list[int] = []
    split = []
    for segment in sorted(whole, key=lambda segment: -segment.n_tokens):
        if segment.n_tokens > max_tokens:
            split += [(part,) for part in _parts(segment, max_tokens, cache_prefix)]
            continue
        place = next((i for i, left in enumerate(room) if left >= segment.n_tokens), len(packs))
        if place == len(packs):
            packs.append(())
            room.append(max_tokens)
        packs[place] += (segment,)
        room[place] -= segment.n_tokens
    return split + packs


def _parts(segment: PackSegment, max_tokens: int, cache_prefix: bool) -> Iterator[PackSegment]:
    """Cut a segment into parts of at most ``max_tokens`` tokens, or of one branch."""
    starts, used = [0], segment.prefix
    for place, length in enumerate(segment.branches):
        if place > starts[-1] and used + length > max_tokens:
            starts.append(place)
            used = 0 if cache_prefix else segment.prefix
        used += length
    for start, stop in zip(starts, [*starts[1:], None], strict=True):
        branches = segment.branches[start:stop]
        yield replace(segment, branches=branches, first=segment.first + start, prefix_cached=cache_prefix and start > 0)


def _arrays(
    trees: Sequence[TokenTree], shapes: Sequence[TreeShape], segments: Sequence[PackSegment], training: bool
) -> list[NDArray[Any]]:
    """Return the arrays of a pack in the order of `Pack`."""
    parts: list[tuple[NDArray[Any], ...]] = []
    grid: list[NDArray[np.int32]] = []
    # of each part: its first token's position, the place before which it is seen, and its branch
    first: list[int] = []
    visible_until: list[int] = []
    owner: list[int] = []
    n = 0
    for segment in segments:
        tree, end = trees[segment.tree], n + segment.n_tokens
        before = sum(len(shape.branches) for shape in shapes[: segment.tree])
        if not segment.prefix_cached:
            learned = training and segment.first == before
            targets = tree.prefix_targets if learned else np.full(segment.prefix, IGNORE, np.int32)
            parts.append((tree.prefix, targets, np.ones(segment.prefix, np.float32), np.zeros(segment.prefix, np.int8)))
            grid += [] if tree.positions is None else [tree.positions]
            first, visible_until, owner, n = [*first, 0], [*visible_until, end], [*owner, -1], n + segment.prefix
        for number, branch in enumerate(
            tree.branches[segment.first - before :][: len(segment.branches)], segment.first
        ):
            n += len(branch.tokens)
            parts.append((branch.tokens, branch.targets, branch.weights, branch.kinds))
            grid += [] if branch.positions is None else [branch.positions]
            first.append(segment.prefix)
            visible_until.append(n)
            owner.append(number)
    tokens, targets, weights, kinds = map(np.concatenate, zip(*parts, strict=True))
    lengths = np.array([len(part[0]) for part in parts])
    ends = lengths.cumsum()
    positions = np.arange(n) + np.repeat(np.array(first) - ends + lengths, lengths)
    places = np.flatnonzero((targets != IGNORE) & (weights > 0) if training else targets != IGNORE)
    arrays = [tokens, positions, np.repeat(visible_until, lengths), places, targets[places]]
    branch_ids = np.repeat(owner, lengths)[places]
    whole = [array.astype(np.int32, copy=False) for array in (*arrays, kinds[places], branch_ids)]
    has_grid_positions = _have_grid_positions(trees)
    if has_grid_positions and len(grid) < len(parts):
        raise ValueError("some trees of a batch have grid positions, and others have none")
    placed = [np.concatenate(grid)] if has_grid_positions else []
    return [*placed, *whole[:5], weights[places].astype(np.float32, copy=False), *whole[5:]]


def _have_grid_positions(trees: Sequence[TokenTree]) -> bool:
    return any(tree.positions is not None for tree in trees)


def default_max_tokens(training: bool) -> int:
    """Return the default number of tokens that go through the model at once."""
    return 16_384 if training or torch.cuda.is_available() else 4096
