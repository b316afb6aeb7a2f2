"""How far a prediction is: a bar in a terminal, elsewhere a line every half minute."""

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from lightning_arc.callbacks.progress import LINE_SECONDS, time_left

NOTE_SECONDS = 5.0
"""Seconds between two updates of figures that cost time to compute."""


class Tracked(Protocol):
    """The work whose progress is shown."""

    title: str
    unit: str

    @property
    def progress(self) -> tuple[int, int]:
        """Views that are done, and all of them."""

    def note(self) -> str:
        """Return a further text to show."""


class BarAndNote(Progress):
    """A bar with its task's field ``note`` in a line below it, so that both fit into 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar, then the line if the note is not empty."""
        yield self.make_tasks_table(self.tasks)
        yield from (
            Text(t.fields["note"], "dim", overflow="ellipsis", no_wrap=True) for t in self.tasks if t.fields["note"]
        )


class PredictionProgress:
    """Shows the progress of this process's part of a prediction.

    Args:
        work: the work.
        shown: whether anything is shown.
        console: where it is shown; standard error if not given.
        clock: seconds from any point on.
    """

    def __init__(
        self,
        work: Tracked,
        shown: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._clock = work, clock
        self._console = console or Console(stderr=True)
        self._bar = BarAndNote(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("views"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not shown,
        )
        self._lines = shown and not self._console.is_terminal
        self._began = self._last_line = self._last_note = clock()
        self._first, total = work.progress
        self._task = self._bar.add_task(work.title, completed=self._first, total=total, note="")
        self._tokens = self._answers = 0
        self._note = ""

    def __enter__(self) -> "PredictionProgress":
        if not self._lines:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._lines:
            self._bar.stop()

    def update(self, records: Sequence[Any]) -> None:
        """Count the records of a step: their ``tokens``, and their ``n_answers``."""
        self._tokens += sum(record.tokens for record in records)
        self._answers += sum(record.n_answers for record in records)
        now = self._clock()
        if now - self._last_note >= NOTE_SECONDS:
            self._last_note, self._note = now, self._work.note()
        done, total = self._work.progress
        seconds = max(now - self._began, 1e-9)
        speed = f"{self._tokens / seconds:,.0f} tokens/s, {self._answers / seconds:,.1f} {self._work.unit}/s"
        speed += f", {self._note}" if self._note else ""
        self._bar.update(self._task, completed=done, total=total, note=speed)
        if self._lines and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            parts = f"{self._work.title}: {done:,} of {total:,} views", f"{seconds:,.0f} s"
            line = ", ".join(filter(None, (*parts, time_left(done, self._first, total, seconds), speed)))
            self._console.print(line, highlight=False, soft_wrap=True)
