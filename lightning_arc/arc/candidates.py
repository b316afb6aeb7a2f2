"""Candidates: grids that solvers propose for a pair, with their votes, and pools of them.

Knows grids and pair keys. Knows nothing of files, prompts or models.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lightning_arc.arc.grid import Grid, grid_key, same_grid
from lightning_arc.arc.task import PairKey


@dataclass(frozen=True, eq=False)
class Candidate:
    """A proposed output.

    Args:
        grid: the output.
        votes: how often it was proposed.
        sources: names of the files or models that proposed it.
        log_likelihood: natural logarithm of the probability that a generator gave it, where known.
    """

    grid: Grid
    votes: int = 1
    sources: tuple[str, ...] = ()
    log_likelihood: float | None = None


class CandidatePool:
    """Candidates of many pairs; equal grids of a pair are one candidate whose votes add up."""

    def __init__(self) -> None:
        self._grids: dict[PairKey, dict[bytes, Candidate]] = {}

    def add(self, key: PairKey, candidate: Candidate) -> None:
        """Add a candidate of a pair, or its votes and sources to the equal one that is there."""
        grids = self._grids.setdefault(key, {})
        name = grid_key(candidate.grid)
        if name in grids:
            old = grids[name]
            grids[name] = replace(
                old,
                votes=old.votes + candidate.votes,
                sources=tuple(dict.fromkeys(old.sources + candidate.sources)),
                log_likelihood=candidate.log_likelihood if old.log_likelihood is None else old.log_likelihood,
            )
        else:
            grids[name] = candidate

    def open(self, key: PairKey) -> None:
        """Note that a pair was asked about, whether it has candidates or not."""
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

    def merge(self, other: "CandidatePool") -> None:
        """Add all candidates of another pool."""
        for key in other:
            self.open(key)
            for candidate in other[key]:
                self.add(key, candidate)
