import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_arc.arc.grid import as_grid, grid_key, named_grid, same_grid
from lightning_arc.errors import DataError

grids = arrays(np.int8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 9))
cells = st.integers(0, 9) | st.sampled_from([-1, 10, 300, 10**30, True, False, 1.0, float("nan"), None, "1", [1]])
nearly_rows = st.lists(st.lists(cells, max_size=3) | st.just("12") | st.just({"0": 1}) | st.just(2), max_size=3)


@given(grids)
def test_a_grid_survives_its_json_form(grid):
    back = as_grid(grid.tolist())
    assert back.dtype == np.int8 and same_grid(back, grid) and same_grid(as_grid(grid.astype(np.uint64)), grid)


@given(grids)
def test_a_grid_cannot_be_changed_and_is_no_view_of_what_it_came_from(grid):
    made = as_grid(grid)
    with pytest.raises(ValueError, match="read-only"):
        made[0, 0] = 1
    assert not np.shares_memory(made, grid) and not as_grid(grid.tolist()).flags.writeable


@given(grids, grids)
def test_keys_are_equal_exactly_for_equal_grids(one, other):
    assert (grid_key(one) == grid_key(other)) == same_grid(one, other)
    assert grid_key(one.T.copy().T) == grid_key(one)


@given(nearly_rows)
def test_rows_are_a_grid_or_refused_in_one_line(rows):
    valid = (
        bool(rows)
        and all(type(row) is list and len(row) == len(rows[0]) > 0 for row in rows)
        and all(type(cell) is int and 0 <= cell <= 9 for row in rows for cell in row)
    )
    if valid:
        assert as_grid(rows).tolist() == rows
    else:
        with pytest.raises(DataError) as error:
            as_grid(rows)
        assert len(str(error.value)) < 120 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0, 1], [2]], "row 1 has 1 cells, row 0 has 2"),
        ([], "expected a list of rows, each a list of integers"),
        ([[]], "has rows without cells"),
        (3, "expected a list of rows, each a list of integers"),
        ("12", "expected a list of rows, each a list of integers"),
        ([1, 2], "expected a list of rows, each a list of integers"),
        ([{"0": 1}], "expected a list of rows, each a list of integers"),
        ([[0, 10]], "row 0 column 1 is 10, colours are 0 to 9"),
        ([[0], [-1]], "row 1 column 0 is -1, colours are 0 to 9"),
        ([[10**50]], f"row 0 column 0 is 1{'0' * 39}, colours are 0 to 9"),
        ([[0.0]], "row 0 column 0 is 0.0, expected an integer"),
        ([[True]], "row 0 column 0 is True, expected an integer"),
        ([["1"]], "row 0 column 0 is '1', expected an integer"),
        ([[None]], "row 0 column 0 is None, expected an integer"),
        ([[[1]]], "row 0 column 0 is [1], expected an integer"),
        ([[0] * 31], "is 1 x 31, sides must be 1 to 30"),
        ([[0]] * 31, "is 31 x 1, sides must be 1 to 30"),
        (np.zeros((2, 2)), "expected a 2-dimensional array of integers, found 2 dimensions of float64"),
        (np.zeros((2, 2), bool), "expected a 2-dimensional array of integers, found 2 dimensions of bool"),
        (np.zeros((2, 2, 2), int), "expected a 2-dimensional array of integers, found 3 dimensions of int64"),
        (np.array([[0, 256]]), "row 0 column 1 is 256, colours are 0 to 9"),
        (np.zeros((0, 3), int), "is 0 x 3, sides must be 1 to 30"),
        (np.zeros((31, 3), int), "is 31 x 3, sides must be 1 to 30"),
    ],
)
def test_what_is_no_grid_is_refused_with_the_place_and_what_was_expected(value, message):
    with pytest.raises(DataError) as error:
        as_grid(value)
    assert str(error.value) == message


def test_a_named_grid_is_refused_with_its_name():
    with pytest.raises(DataError, match=r"^t.json: task a: test\[0\].input row 1 has 1 cells, row 0 has 2$"):
        named_grid([[0, 1], [2]], "t.json: task a: test[0].input")


def test_an_error_is_one_line_whatever_it_quotes():
    assert str(DataError("a\nb.json: task\r\nc: is missing")) == "a b.json: task c: is missing"
