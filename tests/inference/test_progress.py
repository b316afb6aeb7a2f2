"""What a person sees while a prediction runs."""

import re
from io import StringIO
from types import SimpleNamespace

from rich.console import Console

from lightning_arc.inference.progress import PredictionProgress


class Work:
    title, unit = "Ranking", "candidates"

    def __init__(self) -> None:
        self.progress = 4, 20

    def note(self) -> str:
        return "top-2 so far 50.0% of 2"


def shown(terminal: bool, shows: bool = True, width: int = 200) -> str:
    """What is printed of four steps of 20 seconds."""
    now, work, out = [0.0], Work(), StringIO()
    console = Console(file=out, force_terminal=terminal, width=width)
    with PredictionProgress(work, shows, console, clock=lambda: now[0]) as progress:
        for done in (6, 8, 10, 12):
            now[0] += 20.0
            work.progress = done, 20
            progress.update([SimpleNamespace(tokens=1000, n_answers=10)] * 2)
    return out.getvalue()


def test_without_a_terminal_a_line_comes_every_half_minute():
    lines = shown(terminal=False).splitlines()
    assert lines == [
        "Ranking: 8 of 20 views, 40 s, about 120 s left, 100 tokens/s, 1.0 candidates/s, top-2 so far 50.0% of 2",
        "Ranking: 12 of 20 views, 80 s, about 80 s left, 100 tokens/s, 1.0 candidates/s, top-2 so far 50.0% of 2",
    ]


def test_in_a_terminal_of_80_columns_nothing_of_the_bar_is_left_out():
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(terminal=True, width=80))
    *_, bar, note = (line.rstrip() for line in re.split(r"[\r\n]+", printed) if line.strip())
    assert re.fullmatch(r"Ranking [━╸╺]+ +12/20 views \S+ left \S+", bar)
    assert note == "100 tokens/s, 1.0 candidates/s, top-2 so far 50.0% of 2"


def test_nothing_is_shown_where_nothing_is_to_be():
    assert shown(terminal=False, shows=False) == "" and "Ranking" not in shown(terminal=True, shows=False)
