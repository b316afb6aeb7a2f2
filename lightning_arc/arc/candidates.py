"""Candidates: grids that solvers propose for a pair, with their votes, and pools of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lightning_arc.arc.grid import Grid, grid_key, same_grid
from lightning_arc.arc.task import Episode, PairKey


@dataclass(frozen=True, eq=False)
class Candidate:
    """A proposed output.

    Args:
        grid: the output.
        votes: how often it was proposed.
        sources: names of the files or models that proposed it.
        log_likelihood: natural logarithm of the probability that a generator gave it, where known.
        correct: whether it is the right output, where known.
    """

    grid: Grid
    votes: int = 1
    sources: tuple[str, ...] = ()
    log_likelihood: float | None = None
    correct: bool | None = None

    def judged(self, correct: bool) -> "Candidate":
        """Return the candidate marked as right or wrong."""
        return replace(self, correct=correct)


def choose_wrong(
    rng: np.random.Generator, n_grids: int, grid: Callable[[int], Grid], right: Grid, n: int
) -> list[Grid]:
    """Draw up to ``n`` wrong grids from distinct ones, without replacement; at most ``n + 1`` of them are read.

    Args:
        rng: source of randomness.
        n_grids: number of distinct grids.
        grid: returns the grid of an index.
        right: the right output, which is never drawn. Only the grids are compared; ``correct`` marks do not count.
        n: number of wrong grids to draw.
    """
    if n < 1:
        return []
    drawn = map(grid, rng.choice(n_grids, size=min(n + 1, n_grids), replace=False, shuffle=True).tolist())
    return [one for one in drawn if not same_grid(one, right)][:n]


class Pool(Protocol):
    """Candidates by pair, in memory or on disk."""

    def __getitem__(self, key: PairKey) -> tuple[Candidate, ...]:
        """Return a pair's candidates; none for an unknown pair."""

    def __contains__(self, key: PairKey) -> bool: ...

    def __iter__(self) -> Iterator[PairKey]: ...

    def __len__(self) -> int: ...

    def wrong(self, key: PairKey, right: Grid) -> list[Grid]:
        """Return a pair's candidates that differ from its right output."""

    def draw_wrong(self, rng: np.random.Generator, key: PairKey, right: Grid, n: int) -> list[Grid]:
        """Draw up to ``n`` of a pair's candidates that differ from its right output, without replacement."""


class CandidatePool:
    """Candidates of many pairs; equal grids of a pair are one candidate whose votes add up."""

    def __init__(self) -> None:
        self._grids: dict[PairKey, dict[bytes, Candidate]] = {}

    def add(self, key: PairKey, candidate: Candidate) -> None:
        """Add a candidate of a pair; if its grid is already there, that candidate gains the votes and sources.

        The greater of the two log-likelihoods is kept.
        """
        grids = self._grids.setdefault(key, {})
        name = grid_key(candidate.grid)
        if name in grids:
            old = grids[name]
            grids[name] = replace(
                old,
                votes=old.votes + candidate.votes,
                sources=tuple(dict.fromkeys(old.sources + candidate.sources)),
                log_likelihood=max(
                    (x for x in (old.log_likelihood, candidate.log_likelihood) if x is not None), default=None
                ),
                correct=candidate.correct if old.correct is None else old.correct,
            )
        else:
            grids[name] = candidate

    def open(self, key: PairKey) -> None:
        """Register a pair, so that the pool lists it even without candidates."""
        self._grids.setdefault(key, {})

    def __getitem__(self, key: PairKey) -> tuple[Candidate, ...]:
        """Return a pair's candidates in order of first appearance; none for an unknown pair."""
        return tuple(self._grids.get(key, {}).values())

    def __contains__(self, key: PairKey) -> bool:
        return key in self._grids

    def __len__(self) -> int:
        return len(self._grids)

    def __iter__(self) -> Iterator[PairKey]:
        return iter(self._grids)

    @property
    def n_grids(self) -> int:
        """Distinct grids of all pairs together."""
        return sum(map(len, self._grids.values()))

    def wrong(self, key: PairKey, right: Grid) -> list[Grid]:
        """Return a pair's candidates that differ from its right output."""
        return [c.grid for c in self._grids.get(key, {}).values() if not same_grid(c.grid, right)]

    def draw_wrong(self, rng: np.random.Generator, key: PairKey, right: Grid, n: int) -> list[Grid]:
        """Draw up to ``n`` of a pair's candidates that differ from its right output, without replacement."""
        candidates = self[key]
        return choose_wrong(rng, len(candidates), lambda i: candidates[i].grid, right, n) if candidates else []

    def merge(self, other: Pool) -> None:
        """Add all candidates of another pool."""
        for key in other:
            self.open(key)
            for candidate in other[key]:
                self.add(key, candidate)


def add_right_outputs(pool: CandidatePool, episodes: Iterable[Episode]) -> int:
    """Append each known right output that is missing among its query's candidates, without a vote.

    A query without candidates stays without: a right output on its own would always be chosen.

    Returns:
        Number of right outputs added.
    """
    before = pool.n_grids
    for episode in episodes:
        if episode.output is not None and pool[episode.key]:
            pool.add(episode.key, Candidate(episode.output, votes=0))
    return pool.n_grids - before
