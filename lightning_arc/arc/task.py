"""Tasks as they come from files, and episodes as they are shown to a model."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lightning_arc.arc.grid import Grid


@dataclass(frozen=True, eq=False)
class Pair:
    """An input grid and its output grid; the output is ``None`` where it is not known."""

    input: Grid
    output: Grid | None

    @property
    def known_output(self) -> Grid:
        """The output, which must be known.

        Raises:
            ValueError: if it is not known.
        """
        if self.output is None:
            raise ValueError("the output of a pair is not known")
        return self.output


class PairKey(NamedTuple):
    """Which pair of which task: ``split`` is ``"train"`` for demonstration pairs and ``"test"`` for test pairs."""

    task_id: str
    split: str
    index: int  # type: ignore[assignment]  # a field, in place of the method of tuples

    def __str__(self) -> str:
        return f"{self.task_id}/{self.split}[{self.index}]"


def base_id(task_id: str) -> str:
    """Return ``id`` for a variation ``id#k`` of a task; other ids stay as they are."""
    return re.sub(r"#\d+$", "", task_id)


@dataclass(frozen=True, eq=False)
class Task:
    """One ARC task.

    Args:
        id: the task's name, unique within its source.
        demonstrations: pairs whose outputs are shown.
        tests: pairs to be solved.
        is_pair_generator: whether ``demonstrations`` is a large pool of interchangeable pairs (RE-ARC), from which an
            episode draws a few, rather than the few that belong together.
        code: text of a program that makes outputs from inputs, ``None`` where there is none. It is shown and scored
            as text, never run.
        is_named: whether the id is the task's own name, rather than its place in a file.
    """

    id: str
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]
    is_pair_generator: bool = False
    code: str | None = None
    is_named: bool = True

    def pair(self, key: PairKey) -> Pair:
        """Return the pair that ``key`` names."""
        return (self.demonstrations if key.split == "train" else self.tests)[key.index]

    def keys(self) -> Iterator[PairKey]:
        """Iterate over the keys of all pairs, demonstrations first."""
        yield from (PairKey(self.id, "train", i) for i in range(len(self.demonstrations)))
        yield from (PairKey(self.id, "test", i) for i in range(len(self.tests)))


@dataclass(frozen=True, eq=False)
class LabeledCandidate:
    """A proposed output for an episode's query.

    Args:
        grid: the proposed output.
        correct: whether it is the right output; ``None`` where that is not known.
        index: its place in the list it was taken from, kept through every augmentation.
        votes: how often it was proposed.
    """

    grid: Grid
    correct: bool | None
    index: int = 0
    votes: int = 1


@dataclass(frozen=True, eq=False)
class Episode:
    """What one prompt shows: demonstrations, one query input, and the answers to write, judge or compare.

    Args:
        key: the pair that the query is.
        demonstrations: the pairs shown before it, outputs known.
        query: the input whose output is asked for.
        output: its right output, ``None`` where it is not known.
        answers: proposed outputs.
        code: text of a program that makes outputs from inputs, ``None`` where there is none; it is true of the task
            as it is, not of views of it.
    """

    key: PairKey
    demonstrations: tuple[Pair, ...]
    query: Grid
    output: Grid | None
    answers: tuple[LabeledCandidate, ...] = ()
    code: str | None = None

    @property
    def known_output(self) -> Grid:
        """The output, which must be known.

        Raises:
            ValueError: if it is not known.
        """
        if self.output is None:
            raise ValueError(f"{self.key}: the output is not known")
        return self.output

    def map(self, on_input: Callable[[Grid], Grid], on_output: Callable[[Grid], Grid]) -> "Episode":
        """Apply one function to every input grid and another to every output grid, answers included."""
        # Made directly: `dataclasses.replace` takes twice the time, and this is called for every training sample.
        return Episode(
            self.key,
            tuple([Pair(on_input(p.input), on_output(p.known_output)) for p in self.demonstrations]),
            on_input(self.query),
            None if self.output is None else on_output(self.output),
            tuple([LabeledCandidate(on_output(a.grid), a.correct, a.index, a.votes) for a in self.answers]),
            self.code,
        )
