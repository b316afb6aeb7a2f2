"""The string form of encoders: read, never evaluated."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from lightning_arc.errors import DataError
from lightning_arc.prompt.grid_encoders import (
    GridEncoder,
    GridShapeEncoder,
    GridWithSeparationEncoder,
    MinimalGridEncoder,
    ReplaceNumberEncoder,
    RowNumberEncoder,
)
from lightning_arc.prompt.parser import parse_encoder


def test_the_string_of_an_encoder_gives_an_encoder_with_the_same_string(nestings):
    for text in nestings:
        encoder = parse_encoder(text)
        again = parse_encoder(str(encoder))
        assert str(again) == str(encoder)
        assert type(again) is type(encoder)


def test_the_seed_runs_encoder_is_read_as_written():
    encoder = parse_encoder("GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))")
    assert isinstance(encoder, GridShapeEncoder)
    assert isinstance(encoder.encoder, RowNumberEncoder)
    assert isinstance(encoder.encoder.encoder, MinimalGridEncoder)
    assert str(encoder) == "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"


def test_arguments_may_be_named_and_spaced():
    assert parse_encoder("  RepeatNumberEncoder( n = 4 )\n").n == 4
    assert parse_encoder('GridWithSeparationEncoder(separator=" | ")').separator == " | "
    assert isinstance(parse_encoder("RowNumberEncoder(encoder=ReplaceNumberEncoder())").encoder, ReplaceNumberEncoder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MinimalGridEncoder",
        "__import__('os')",
        "__import__('os').system('true')",
        "MinimalGridEncoder().__class__",
        "MinimalGridEncoder().encode()",
        "(lambda: MinimalGridEncoder())()",
        "[MinimalGridEncoder()][0]",
        "MinimalGridEncoder() if True else MinimalGridEncoder()",
        "RowNumberEncoder(*[MinimalGridEncoder()])",
        "RowNumberEncoder(**{'encoder': MinimalGridEncoder()})",
        "RowNumberEncoder(encoder := MinimalGridEncoder())",
        "RowNumberEncoder(encoder=MinimalGridEncoder(), encoder=MinimalGridEncoder())",
        "RowNumberEncoder(MinimalGridEncoder(), MinimalGridEncoder())",
        "MinimalGridEncoder(); MinimalGridEncoder()",
        "MinimalGridEncoder(1)",
        "MinimalGridEncoder(x=1)",
        "RowNumberEncoder('x')",
        "RowNumberEncoder(0)",
        "RowNumberEncoder('')",
        "ReplaceNumberEncoder(3)",
        "ReplaceNumberEncoder('abc')",
        "ReplaceNumberEncoder(symbols=3)",
        "GridWithSeparationEncoder(3)",
        "GridWithSeparationEncoder(0)",
        "GridWithSeparationEncoder(f'{1}')",
        "GridWithSeparationEncoder(b'x')",
        "RepeatNumberEncoder('3')",
        "RepeatNumberEncoder(3.0)",
        "RepeatNumberEncoder(True)",
        "RepeatNumberEncoder(9" + "9" * 5000 + ")",
        "RowNumberEncoder(" * 500 + ")" * 500,
        "(" * 5000,
        "'MinimalGridEncoder()'",
        "3",
        "GridEncoder()",
        "MinimalGridEncoder()\0",
    ],
    ids=lambda text: text[:40],
)
def test_anything_but_encoders_strings_and_integers_is_refused_in_one_line(text):
    with pytest.raises(DataError) as error:
        parse_encoder(text)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "{nines}",
        "0x{nines}",
        "RepeatNumberEncoder({nines})",
        "RepeatNumberEncoder(0x{nines})",
        "RepeatNumberEncoder(-0x{nines})",
        "GridWithSeparationEncoder('{nines}')",
        "ReplaceNumberEncoder(symbols='{nines}')",
        "RowNumberEncoder(a{nines}=3)",
        "E{nines}()",
    ],
)
@pytest.mark.parametrize("n", [900, 4400, 10_000])
def test_numbers_and_names_of_any_length_are_refused_in_one_short_line(text, n):
    with pytest.raises(DataError) as error:
        parse_encoder(text.format(nines="9" * n))
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400


def test_an_unknown_encoder_is_refused_with_the_names_of_those_that_exist():
    with pytest.raises(DataError, match="no encoder 'NoEncoder', there are MinimalGridEncoder, .*CompactGridEncoder"):
        parse_encoder("RowNumberEncoder(NoEncoder())")


@given(st.text(max_size=60))
def test_any_text_gives_an_encoder_or_a_data_error(text):
    with contextlib.suppress(DataError):
        assert isinstance(parse_encoder(text), GridEncoder)


def test_encoders_can_be_made_from_yaml_as_classes():
    parser = ArgumentParser()
    parser.add_argument("--grid_encoder", type=GridEncoder | str | None)
    prefix = "lightning_arc.prompt.grid_encoders"
    inner = {"class_path": f"{prefix}.GridWithSeparationEncoder", "init_args": {"separator": "/"}}
    outer = {"class_path": f"{prefix}.RowNumberEncoder", "init_args": {"encoder": inner}}
    made = parser.instantiate_classes(parser.parse_object({"grid_encoder": outer})).grid_encoder
    assert str(made) == str(RowNumberEncoder(GridWithSeparationEncoder("/")))
