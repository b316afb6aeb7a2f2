"""Grid encoders: text and back, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc.grid import as_grid, same_grid
from lightning_arc.errors import DataError
from lightning_arc.prompt.grid_encoders import (
    ENCODERS,
    FULL_WIDTH_DIGITS,
    CompactGridEncoder,
    DecodeError,
    GridCodeBlockEncoder,
    GridEncoder,
    GridShapeEncoder,
    GridWithSeparationEncoder,
    MinimalGridEncoder,
    RepeatNumberEncoder,
    ReplaceNumberEncoder,
    RowNumberEncoder,
)
from lightning_arc.prompt.parser import parse_encoder

GRID = as_grid([[0, 1, 2], [3, 4, 9]])


def test_every_encoder_writes_what_its_description_says():
    assert MinimalGridEncoder().encode(GRID) == "012\n349"
    assert RowNumberEncoder(MinimalGridEncoder()).encode(GRID) == "1 012\n2 349"
    assert GridShapeEncoder(MinimalGridEncoder()).encode(GRID) == "```grid shape: 2x3\n012\n349\n```"
    assert GridCodeBlockEncoder(MinimalGridEncoder()).encode(GRID) == "```grid\n012\n349\n```"
    assert GridWithSeparationEncoder("|").encode(GRID) == "0|1|2\n3|4|9"
    assert RepeatNumberEncoder(3).encode(GRID) == "000111222\n333444999"
    assert ReplaceNumberEncoder(MinimalGridEncoder(), "abcdefghij").encode(GRID) == "abc\ndej"
    assert CompactGridEncoder().encode(GRID) == "<h2><w3><r1>012<r2>349"


def test_row_numbers_stay_digits_around_replaced_cells():
    encoder = GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder()))
    assert encoder.encode(GRID) == "```grid shape: 2x3\n1 ０１２\n2 ３４９\n```"


@given(data=st.data())
def test_decoding_gives_back_every_grid(nestings, grids, data):
    encoder = parse_encoder(data.draw(st.sampled_from(nestings)))
    grid = data.draw(grids())
    decoded = encoder.decode(encoder.encode(grid))
    assert same_grid(decoded, grid) and decoded.dtype == np.int8


@given(data=st.data())
def test_a_mutated_text_is_refused_or_is_another_grid_written_exactly(nestings, grids, data):
    encoder = parse_encoder(data.draw(st.sampled_from(nestings)))
    text = encoder.encode(data.draw(grids(4)))
    at = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 3))
    added = data.draw(st.text(st.sampled_from("01 59\n`x|a-<>h\r\t０９²٣"), max_size=3))
    mutated = text[:at] + added + text[at + removed :]
    try:
        grid = encoder.decode(mutated)
    except DecodeError:
        return
    assert encoder.encode(grid) == mutated


@given(text=st.text(max_size=40), data=st.data())
def test_a_decoder_raises_nothing_but_its_own_error(nestings, text, data):
    encoder = parse_encoder(data.draw(st.sampled_from(nestings)))
    try:
        assert encoder.encode(encoder.decode(text)) == text
    except DecodeError as error:
        assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("encoder", "text"),
    [
        (MinimalGridEncoder(), ""),
        (MinimalGridEncoder(), "01\n2"),
        (MinimalGridEncoder(), "01\n"),
        (MinimalGridEncoder(), "01\r\n23"),
        (MinimalGridEncoder(), " 01"),
        (MinimalGridEncoder(), "-1"),
        (MinimalGridEncoder(), "٣"),
        (MinimalGridEncoder(), "²"),
        (MinimalGridEncoder(), "0" * 31),
        (MinimalGridEncoder(), "\n".join("0" * 31)),
        (RowNumberEncoder(), "2 01"),
        (RowNumberEncoder(), "1 01\n1 23"),
        (RowNumberEncoder(), "01 01"),
        (RowNumberEncoder(), "1  01"),
        (GridShapeEncoder(), "```grid shape: 2x2\n01\n```"),
        (GridShapeEncoder(), "```grid shape: 1x2\n01\n``` "),
        (GridShapeEncoder(), "```grid shape: 1x2\n01"),
        (GridCodeBlockEncoder(), "```grid\n```"),
        (GridCodeBlockEncoder(), "```\n01\n```"),
        (GridWithSeparationEncoder(), "0|1|"),
        (GridWithSeparationEncoder(), "0||1"),
        (RepeatNumberEncoder(), "000112"),
        (RepeatNumberEncoder(), "0000"),
        (ReplaceNumberEncoder(), "0"),
        (ReplaceNumberEncoder(), "０1"),
        (CompactGridEncoder(), "<h1><w2>01"),
        (CompactGridEncoder(), "<h2><w1><r1>01"),
        (CompactGridEncoder(), "<w2><h1><r1>01"),
        (CompactGridEncoder(), "<h2><w2><r1>01<r1>01"),
        (CompactGridEncoder(), "<h1><w2><r1>01\n"),
    ],
    ids=lambda value: repr(str(value)),
)
def test_malformed_text_is_refused(encoder: GridEncoder, text: str):
    with pytest.raises(DecodeError, match="not a grid"):
        encoder.decode(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReplaceNumberEncoder(RowNumberEncoder()),
        lambda: ReplaceNumberEncoder(GridShapeEncoder()),
        lambda: ReplaceNumberEncoder(GridCodeBlockEncoder(RowNumberEncoder())),
        lambda: ReplaceNumberEncoder(CompactGridEncoder()),
        lambda: ReplaceNumberEncoder(ReplaceNumberEncoder(), "abcdefghij"),
        lambda: ReplaceNumberEncoder(GridCodeBlockEncoder(), "abcdefghij"),
        lambda: ReplaceNumberEncoder(GridWithSeparationEncoder("|"), "|bcdefghij"),
        lambda: ReplaceNumberEncoder(symbols="abc"),
        lambda: ReplaceNumberEncoder(symbols="aacdefghij"),
        lambda: ReplaceNumberEncoder(symbols="0abcdefghi"),
        lambda: ReplaceNumberEncoder(symbols=" abcdefghi"),
        lambda: ReplaceNumberEncoder(symbols="\nabcdefghi"),
        lambda: ReplaceNumberEncoder(symbols="\ud800abcdefghi"),
        lambda: ReplaceNumberEncoder(symbols="e\u0301abcdfghi"),
        lambda: GridWithSeparationEncoder(""),
        lambda: GridWithSeparationEncoder("1"),
        lambda: GridWithSeparationEncoder("a\nb"),
        lambda: RepeatNumberEncoder(0),
        lambda: RepeatNumberEncoder(1000),
    ],
)
def test_an_encoder_that_could_not_be_reversed_cannot_be_made(make):
    with pytest.raises(DataError, match=r"^(ReplaceNumber|GridWithSeparation|RepeatNumber)Encoder: "):
        make()


def test_every_encoder_is_tested_in_some_nesting(nestings):
    assert all(any(name in text for text in nestings) for name in ENCODERS)


def test_full_width_digits_are_the_ten_colours_in_order():
    assert [int(symbol) for symbol in FULL_WIDTH_DIGITS] == list(range(10))
    assert ReplaceNumberEncoder().encode(as_grid([list(range(10))])) == FULL_WIDTH_DIGITS
