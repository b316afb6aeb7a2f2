"""Asking: the requests of a ranking engine as tree batches, made as the answers to earlier ones let it go on.

Knows an engine, and functions that make trees and batches. Knows nothing of tasks, prompts, models or Lightning.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from torch.utils.data import IterableDataset

from lightning_arc.data.batch import TreeBatch
from lightning_arc.prompt.tree import TokenTree
from lightning_arc.ranking.records import ScoringRequest, ViewScores, no_answer
from lightning_arc.ranking.scheduler import RankingScheduler


class RequestStream(IterableDataset):
    """Batches of an engine's requests. It is read in the process in which the engine takes the answers.

    Args:
        engine: asks.
        make: makes a request's tree, ``None`` if it is too long.
        collate: makes a batch of trees and what is told about each.
        keep: takes the answer to a request that is too long, which is none.
        n_candidates: of a request's test input.
        batch_size: most requests of a batch.
        about: what else a request's tree is told with. Requests to one member of an ensemble and with one ``lesson``,
            if this tells any, come together.
        max_seq_len: what a tree is too long for; the records of requests that are too long keep it.
    """

    def __init__(
        self,
        engine: RankingScheduler,
        make: Callable[[ScoringRequest], TokenTree | None],
        collate: Callable[[Sequence[TokenTree], Sequence[dict[str, Any]]], TreeBatch],
        keep: Callable[[ViewScores], None],
        n_candidates: Callable[[ScoringRequest], int],
        batch_size: int,
        about: Callable[[ScoringRequest], dict[str, Any]],
        max_seq_len: int | None = None,
    ) -> None:
        self.engine, self.make, self.collate, self.keep = engine, make, collate, keep
        self.n_candidates, self.batch_size, self.about = n_candidates, batch_size, about
        self.max_seq_len = max_seq_len

    def __iter__(self) -> Iterator[TreeBatch]:
        """Yield batches with ``request`` and ``n`` (candidates) of each tree; empty ones where answers are due."""
        while (requests := self.engine.next(self.batch_size)) is not None:
            trees: list[TokenTree] = []
            info: list[dict[str, Any]] = []
            for request in requests:
                n, tree = self.n_candidates(request), self.make(request)
                if tree is None:
                    self.keep(no_answer(request, n, self.max_seq_len))
                else:
                    trees.append(tree)
                    info.append({"request": request, "n": n} | self.about(request))
            for places in alike([(told["request"].member, told.get("lesson")) for told in info]) or [[]]:
                if self.engine.time_is_up(len(places)):
                    return
                yield self.collate([trees[i] for i in places], [info[i] for i in places])
                if places and "lesson" in info[places[0]]:
                    yield self.collate(
                        [], []
                    )  # Lightning takes a batch ahead; no lesson begins before the last one ends


def alike(names: Sequence[Hashable]) -> list[list[int]]:
    """Return the places of equal names together, in the order in which the names first come."""
    places: dict[Hashable, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return list(places.values())
