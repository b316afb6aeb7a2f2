"""What a person sees while a prediction runs."""

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


def shown(terminal: bool, shows: bool = True) -> str:
    """What is printed of four steps of 20 seconds."""
    now, work, out = [0.0], Work(), StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
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


def test_in_a_terminal_there_is_a_bar_with_a_total():
    printed = shown(terminal=True)
    assert "Ranking" in printed and "/20" in printed and "views" in printed and "left" in printed


def test_nothing_is_shown_where_nothing_is_to_be():
    assert shown(terminal=False, shows=False) == "" and "Ranking" not in shown(terminal=True, shows=False)
