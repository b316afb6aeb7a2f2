"""Prompt templates: what each prompt says, as text in segments, of which some are scored.

`ChatTemplatePrompt` speaks through a tokenizer's chat template, `CompactPrompt` in the small grid vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_arc.arc.grid import Grid
from lightning_arc.arc.task import Episode
from lightning_arc.errors import DataError
from lightning_arc.prompt.grid_encoders import GridEncoder
from lightning_arc.prompt.tree import PromptKind

WRITE = "output-from-examples-v1"
VERIFY = "verify-output-from-examples-v1"
"""The prompt of verdicts that has the candidate written first, and so holds `WRITE`."""
SELECT = "select-output-from-examples-v0"

PROMPTS: dict[str, PromptKind] = {
    WRITE: PromptKind.OUTPUT_FROM_EXAMPLES,
    VERIFY: PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES,
    "verify-output-from-examples-v0": PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES,
    SELECT: PromptKind.SELECT_OUTPUT_FROM_EXAMPLES,
    "input-from-inputs-v0": PromptKind.INPUT_FROM_INPUTS,
    "output-from-outputs-v0": PromptKind.OUTPUT_FROM_OUTPUTS,
    "code-from-examples-v0": PromptKind.CODE_FROM_EXAMPLES,
    "output-from-code-v0": PromptKind.OUTPUT_FROM_CODE,
    "input-from-code-v0": PromptKind.INPUT_FROM_CODE,
}
"""Every prompt by name and version; a version never changes once a model has been trained with it."""

FROM_CODE = (PromptKind.CODE_FROM_EXAMPLES, PromptKind.OUTPUT_FROM_CODE, PromptKind.INPUT_FROM_CODE)
"""Kinds that need a task's program, which fits the task itself and views that only reorder it."""

MAX_OPTIONS = 9
"""Most options of a selection, so that the answer is one digit."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of a prompt, which most tokenizers do not join with what stands before or behind it.

    Args:
        text: what is written, behind the grid if there is one.
        grid: a grid that is written before the text.
        trained: whether it is an output grid of a demonstration, and what ends it.
        free: whether the text is free (a program), so that it hardly ever occurs again.
    """

    text: str = ""
    grid: Grid | None = None
    trained: bool = False
    free: bool = False


@dataclass(frozen=True, eq=False)
class RenderedBranch:
    """What follows the shared prefix in one branch.

    Args:
        written: an answer that the model writes, scored token by token together with the end of its turn.
        shown: text that is read and not scored.
        verdict: the word that is predicted last; ``None`` where nothing is asked.
        kind: prompt kind of `written`.
        trained: whether the answer that is written or chosen is right, so that it is trained and not only scored.
        answer: place of the judged answer (`LabeledCandidate.index`), -1 if none.
        correct: whether that answer is right.
    """

    written: Segment | None = None
    shown: tuple[Segment, ...] = ()
    verdict: str | None = None
    kind: PromptKind = PromptKind.OUTPUT_FROM_EXAMPLES
    trained: bool = True
    answer: int = -1
    correct: bool | None = None


@dataclass(frozen=True, eq=False)
class RenderedPrompt:
    """A prompt in full.

    Args:
        prefix: what all branches share.
        branches: what may follow the prefix.
    """

    prefix: tuple[Segment, ...]
    branches: tuple[RenderedBranch, ...]


class PromptTemplate(ABC):
    """How episodes become prompts.

    Args:
        encoder: how grids are written.
    """

    yes: str
    no: str
    end: str
    """Text of the token that ends an answer."""
    numbers: tuple[str, ...] = tuple("123456789")
    pieces: str | None = None
    """Pattern of the pieces for `PieceTokenizer`."""

    def __init__(self, encoder: GridEncoder) -> None:
        self.encoder = encoder

    @abstractmethod
    def examples(self, episode: Episode, ending: str) -> tuple[Segment, ...]:
        """Return demonstrations and query, up to what comes first in a branch of the prompt kind ``ending``."""

    @abstractmethod
    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[Segment, ...]:
        """Return grids of one side of a task, up to the next one that is to be written."""

    @abstractmethod
    def options(self, grids: Sequence[Grid]) -> tuple[Segment, ...]:
        """Return numbered options and the question which is right."""

    @abstractmethod
    def program(self, episode: Episode, kind: PromptKind) -> RenderedPrompt:
        """Return a prompt that shows a task's program or asks for it."""

    @property
    @abstractmethod
    def question_after_writing(self) -> str:
        """What stands between a written answer and its verdict, the end of its turn included."""

    @property
    @abstractmethod
    def question_after_showing(self) -> str:
        """What stands between a shown answer and its verdict."""

    def render(self, episode: Episode, prompt: str) -> RenderedPrompt:
        """Render an episode.

        Args:
            episode: what to show; verification and selection need its answers, the others the right output.
            prompt: a name of `PROMPTS`.

        Raises:
            DataError: if there is no such prompt.
            ValueError: if the episode lacks what the prompt needs.
        """
        if prompt not in PROMPTS:
            raise DataError(f"prompt {prompt!r}: there is none of this name, there are {', '.join(PROMPTS)}")
        kind = PROMPTS[prompt]
        if kind is PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES:
            if not episode.answers:
                raise ValueError(f"{episode.key}: {prompt} needs answers to judge")
            return self._verify(episode, writes=prompt.endswith("-v1"))
        if kind is PromptKind.SELECT_OUTPUT_FROM_EXAMPLES:
            return self._select(episode, prompt)
        if kind in FROM_CODE and episode.code is None:
            raise ValueError(f"{episode.key}: {prompt} needs the task's code")
        if kind not in (PromptKind.INPUT_FROM_INPUTS, PromptKind.INPUT_FROM_CODE) and episode.output is None:
            raise ValueError(f"{episode.key}: {prompt} needs the right output")
        if kind in FROM_CODE:
            return self.program(episode, kind)
        if kind is PromptKind.INPUT_FROM_INPUTS:
            prefix = self.series([p.input for p in episode.demonstrations], inputs=True)
        elif kind is PromptKind.OUTPUT_FROM_OUTPUTS:
            prefix = self.series([p.known_output for p in episode.demonstrations], inputs=False)
        else:
            prefix = self.examples(episode, "write")
        written = episode.query if kind is PromptKind.INPUT_FROM_INPUTS else episode.known_output
        return RenderedPrompt(prefix, (RenderedBranch(Segment(grid=written), kind=kind),))

    def text(self, prompt: RenderedPrompt, i: int) -> str:
        """Return the whole text of branch ``i``."""
        branch = prompt.branches[i]
        written = () if branch.written is None else (branch.written,)
        tail = self.end if branch.verdict is None else branch.verdict
        return self.text_of((*prompt.prefix, *written, *branch.shown)) + tail

    def text_of(self, segments: Sequence[Segment]) -> str:
        """Return the text of parts."""
        return "".join(("" if p.grid is None else self.encoder.encode(p.grid)) + p.text for p in segments)

    def _verify(self, episode: Episode, writes: bool) -> RenderedPrompt:
        question = Segment(self.question_after_writing)
        branches = tuple(
            RenderedBranch(
                written=Segment(grid=answer.grid) if writes else None,
                shown=(question if writes else Segment(self.question_after_showing, answer.grid),),
                verdict=self.no if answer.correct is False else self.yes,
                trained=not writes or answer.correct is True,
                answer=answer.index,
                correct=answer.correct,
            )
            for answer in episode.answers
        )
        return RenderedPrompt(self.examples(episode, "write" if writes else "verify"), branches)

    def selections(self, episode: Episode, orders: Sequence[Sequence[int]]) -> RenderedPrompt:
        """Render selections among an episode's answers, a branch for each order in which some of them are shown.

        Args:
            episode: its answers are the options.
            orders: for each branch, the indices of its options in the episode's answers, in the order shown.

        Raises:
            ValueError: if an order does not have 2 to 9 options, or repeats one.
        """
        branches = []
        for order in orders:
            if not 2 <= len(order) <= MAX_OPTIONS or len(set(order)) != len(order):
                raise ValueError(f"{episode.key}: options {list(order)}, expected 2 to {MAX_OPTIONS} different ones")
            answers = [episode.answers[place] for place in order]
            right = [number for number, answer in zip(self.numbers, answers, strict=False) if answer.correct]
            shown = self.options([answer.grid for answer in answers])
            number = right[0] if right else self.numbers[0]
            branches.append(RenderedBranch(None, shown, number, PROMPTS[SELECT], trained=bool(right)))
        return RenderedPrompt(self.examples(episode, "select"), tuple(branches))

    def _select(self, episode: Episode, prompt: str) -> RenderedPrompt:
        if not any(answer.correct for answer in episode.answers) or not 2 <= len(episode.answers) <= MAX_OPTIONS:
            raise ValueError(f"{episode.key}: {prompt} needs 2 to {MAX_OPTIONS} answers, a right one among them")
        return self.selections(episode, [range(len(episode.answers))])
