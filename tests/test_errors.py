"""Errors of other libraries in one line."""

import pytest

from lightning_arc.errors import first_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("what happened", "what happened"),
        ("\n\n  what happened \nmore", "what happened"),
        ("Error(s) in loading:\n\tsize mismatch for a: (3) and (4)\n\tsize mismatch for b", None),
        ("one:\n two:\n\n three\n four", "one: two: three"),
        ("nothing behind it:", "nothing behind it"),
        (" : \n\n", "ValueError"),
        ("", "ValueError"),
    ],
)
def test_a_line_that_announces_the_reason_is_joined_with_the_reason(message, line):
    expected = "Error(s) in loading: size mismatch for a: (3) and (4)" if line is None else line
    assert first_line(ValueError(message)) == expected
