"""Scoring requests as batches of token trees, made when the scheduler asks for them."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from torch.utils.data import IterableDataset

from lightning_arc.data.batch import TreeBatch
from lightning_arc.prompt.tree import TokenTree
from lightning_arc.ranking.records import ScoringRequest, ViewScores, no_answer
from lightning_arc.ranking.scheduler import RankingScheduler


class RequestStream(IterableDataset):
    """Batches of a scheduler's requests, read in the process in which the scheduler takes the scores.

    Args:
        scheduler: says what to score next.
        make: makes a request's token tree, ``None`` if it is too long.
        collate: makes a batch of trees and what the model needs to know about each.
        keep: takes the empty record of a request that is too long.
        n_candidates: number of candidates of a request's test input.
        batch_size: most requests of a batch.
        about: what else the model needs to know about a request. Only requests to the same member of an ensemble, and
            with the same ``dataset`` of test-time training if there is one, share a batch.
        max_seq_len: the limit that records of too long requests name.
    """

    def __init__(
        self,
        scheduler: RankingScheduler,
        make: Callable[[ScoringRequest], TokenTree | None],
        collate: Callable[[Sequence[TokenTree], Sequence[dict[str, Any]]], TreeBatch],
        keep: Callable[[ViewScores], None],
        n_candidates: Callable[[ScoringRequest], int],
        batch_size: int,
        about: Callable[[ScoringRequest], dict[str, Any]],
        max_seq_len: int | None = None,
    ) -> None:
        self.scheduler, self.make, self.collate, self.keep = scheduler, make, collate, keep
        self.n_candidates, self.batch_size, self.about = n_candidates, batch_size, about
        self.max_seq_len = max_seq_len

    def __iter__(self) -> Iterator[TreeBatch]:
        """Yield batches with ``request`` and ``n`` (candidates) of each tree; an empty one where scores are awaited."""
        while (requests := self.scheduler.next(self.batch_size)) is not None:
            trees: list[TokenTree] = []
            info: list[dict[str, Any]] = []
            for request in requests:
                n, tree = self.n_candidates(request), self.make(request)
                if tree is None:
                    self.keep(no_answer(request, n, self.max_seq_len))
                else:
                    trees.append(tree)
                    info.append({"request": request, "n": n} | self.about(request))
            for places in group_equal([(told["request"].member, told.get("dataset")) for told in info]) or [[]]:
                if self.scheduler.time_is_up(len(places)):
                    return
                yield self.collate([trees[i] for i in places], [info[i] for i in places])
                if places and "dataset" in info[places[0]]:
                    # Lightning fetches a batch ahead: no training begins before the scores of the last one are there.
                    yield self.collate([], [])


def group_equal(values: Sequence[Hashable]) -> list[list[int]]:
    """Return the indices of equal values, a list a value, in the order in which the values first appear."""
    groups: dict[Hashable, list[int]] = {}
    for i, value in enumerate(values):
        groups.setdefault(value, []).append(i)
    return list(groups.values())
