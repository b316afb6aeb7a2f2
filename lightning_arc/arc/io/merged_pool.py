"""Candidates of several files put together pair by pair, as they are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lightning_arc.arc.candidates import Candidate, CandidatePool, Pool, choose_wrong
from lightning_arc.arc.grid import Grid, grid_key
from lightning_arc.arc.io.pool_index import pair_number
from lightning_arc.arc.task import PairKey


class MergedPool:
    """Several pools that are read like one.

    Args:
        pools: their votes add up.
        without_votes: candidates of verifier files, whose solvers may also be in ``pools``. A candidate in both gets
            the greater of its two vote counts, not their sum.
    """

    def __init__(self, pools: Sequence[Pool], without_votes: CandidatePool | None = None) -> None:
        self.pools, self.without_votes = tuple(pools), without_votes or CandidatePool()

    def __getitem__(self, key: PairKey) -> tuple[Candidate, ...]:
        """Return a pair's candidates in order of first appearance; none for an unknown pair."""
        merged = CandidatePool()
        for pool in self.pools:
            for candidate in pool[key]:
                merged.add(key, candidate)
        votes = {grid_key(candidate.grid): candidate.votes for candidate in merged[key]}
        for candidate in self.without_votes[key]:
            more = candidate.votes - votes.get(grid_key(candidate.grid), 0)
            merged.add(key, replace(candidate, votes=max(more, 0)))
        return merged[key]

    def __contains__(self, key: PairKey) -> bool:
        return key in self.without_votes or any(key in pool for pool in self.pools)

    def __iter__(self) -> Iterator[PairKey]:
        """Iterate over the pairs, in order of first appearance."""
        return iter(dict.fromkeys(key for pool in (*self.pools, self.without_votes) for key in pool))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def wrong(self, key: PairKey, right: Grid) -> list[Grid]:
        """Return a pair's candidates that differ from its right output."""
        grids = (grid for pool in (*self.pools, self.without_votes) for grid in pool.wrong(key, right))
        return list({grid_key(grid): grid for grid in grids}.values())

    def draw_wrong(self, rng: np.random.Generator, key: PairKey, right: Grid, n: int) -> list[Grid]:
        """Draw up to ``n`` of a pair's candidates that differ from its right output, without replacement."""
        grids = self.wrong(key, right)
        return choose_wrong(rng, len(grids), grids.__getitem__, right, n) if grids else []


class LimitedPool:
    """A pool that draws a pair's wrong predictions from a fixed subset of them.

    Args:
        pool: the whole pool.
        most: most wrong predictions in a pair's subset, which is chosen by the pair's key.
    """

    def __init__(self, pool: Pool, most: int) -> None:
        self.pool, self.most = pool, most

    def __getitem__(self, key: PairKey) -> tuple[Candidate, ...]:
        """Return all of a pair's candidates."""
        return self.pool[key]

    def __contains__(self, key: PairKey) -> bool:
        return key in self.pool

    def __iter__(self) -> Iterator[PairKey]:
        return iter(self.pool)

    def __len__(self) -> int:
        return len(self.pool)

    def wrong(self, key: PairKey, right: Grid) -> list[Grid]:
        """Return the subset of a pair's candidates that differ from its right output."""
        grids = self.pool.wrong(key, right)
        if len(grids) <= self.most:
            return grids
        chosen = np.random.default_rng(pair_number(key)).choice(len(grids), self.most, replace=False)
        return [grids[i] for i in sorted(chosen.tolist())]

    def draw_wrong(self, rng: np.random.Generator, key: PairKey, right: Grid, n: int) -> list[Grid]:
        """Draw up to ``n`` candidates of this subset, without replacement."""
        grids = self.wrong(key, right)
        return choose_wrong(rng, len(grids), grids.__getitem__, right, n) if grids else []
