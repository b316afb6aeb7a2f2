"""What the prompt tests draw and load: grids, episodes, encoders, and the two kinds of tokenizer."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lightning_arc.arc.grid import Grid, as_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.prompt.compact import compact_tokenizer


def _grid(height: int, width: int, n_colours: int, seed: int) -> Grid:
    return as_grid(np.random.default_rng(seed).integers(n_colours, size=(height, width)))


@st.composite
def _grids(draw: st.DrawFn, largest: int = 30) -> Grid:
    sides = st.integers(1, largest)
    return _grid(draw(sides), draw(sides), draw(st.integers(1, 10)), draw(st.integers(0, 2**32)))


@st.composite
def _episodes(draw: st.DrawFn, largest: int = 12) -> Episode:
    """Draw an episode with two to five answers, the first one right, the others wrong or not judged, and a program."""
    some = _grids(largest)
    demonstrations = tuple(Pair(draw(some), draw(some)) for _ in range(draw(st.integers(0, 4))))
    output = draw(some)
    others = draw(st.lists(st.tuples(some, st.sampled_from([False, None])), min_size=1, max_size=4))
    given = [(output, True), *others]
    places = draw(st.permutations(range(20)))
    answers = tuple(
        LabeledCandidate(grid, correct, place) for (grid, correct), place in zip(given, places, strict=False)
    )
    code = draw(st.sampled_from(["def f(g):\n    return g[::-1]  # 180", "", "x = 10\n\n"]) | st.text(max_size=30))
    return Episode(PairKey("drawn", "test", 0), demonstrations, draw(some), output, answers, code)


@pytest.fixture(scope="session")
def grids():
    """A function that makes a strategy of grids with sides up to ``largest``."""
    return _grids


@pytest.fixture(scope="session")
def episodes():
    """A function that makes a strategy of episodes whose grids have sides up to ``largest``."""
    return _episodes


@pytest.fixture(scope="session")
def nestings() -> tuple[str, ...]:
    """Grid encoders in many nestings, for chats."""
    return (
        "MinimalGridEncoder()",
        "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
        "RowNumberEncoder(GridShapeEncoder(MinimalGridEncoder()))",
        "GridCodeBlockEncoder(RowNumberEncoder(RepeatNumberEncoder(3)))",
        "GridShapeEncoder(GridCodeBlockEncoder(RepeatNumberEncoder(n=2)))",
        "RowNumberEncoder(GridWithSeparationEncoder('|'))",
        "GridWithSeparationEncoder(' ')",
        "GridShapeEncoder(GridWithSeparationEncoder(', '))",
        "GridWithSeparationEncoder('a')",
        "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder()))",
        "ReplaceNumberEncoder(GridWithSeparationEncoder('-'))",
        "ReplaceNumberEncoder(GridCodeBlockEncoder(RepeatNumberEncoder(2)))",
        "RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghij'))",
        "ReplaceNumberEncoder(symbols='０१２３４５６７８９')",
        "GridShapeEncoder(ReplaceNumberEncoder(symbols='零一二三四五六七八九'))",
        "ReplaceNumberEncoder(MinimalGridEncoder(), symbols='.,;:!?*#-+')",
        "ReplaceNumberEncoder(symbols='０é٢d🟥!💠öß９')",
        "GridCodeBlockEncoder(CompactGridEncoder())",
    )


@pytest.fixture(scope="session")
def qwen(shared: Path) -> PreTrainedTokenizerBase:
    """Qwen2.5's real tokenizer."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return AutoTokenizer.from_pretrained(shared / "qwen2.5-0.5b")


@pytest.fixture(scope="session")
def compact(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """The compact tokenizer, as it is loaded from a model's folder."""
    folder = tmp_path_factory.mktemp("compact")
    compact_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
