"""Layouts: what each prompt says, as text with the parts that are scored.

Knows episodes, grid encoders and the order of a prompt's parts. Knows nothing of token ids or models. `ChatLayout`
speaks through a tokenizer's chat template, `CompactLayout` in the small grid vocabulary; both cut their text only where
no tokenizer joins what stands on the two sides.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lightning_arc.arc.grid import DataError, Grid
from lightning_arc.arc.task import Episode
from lightning_arc.prompt import compact
from lightning_arc.prompt.encoders import CompactGridEncoder, GridEncoder
from lightning_arc.prompt.tree import Kind

PROMPTS: dict[str, Kind] = {
    "output-from-examples-v1": Kind.OUTPUT_FROM_EXAMPLES,
    "verify-output-from-examples-v1": Kind.VERIFY_OUTPUT_FROM_EXAMPLES,
    "verify-output-from-examples-v0": Kind.VERIFY_OUTPUT_FROM_EXAMPLES,
    "select-output-from-examples-v0": Kind.SELECT_OUTPUT_FROM_EXAMPLES,
    "input-from-inputs-v0": Kind.INPUT_FROM_INPUTS,
    "output-from-outputs-v0": Kind.OUTPUT_FROM_OUTPUTS,
}
"""Every prompt by name and version; a version never changes once a model has been trained with it."""

MAX_OPTIONS = 9
"""Most options of a selection, so that the answer is one digit."""


@dataclass(frozen=True)
class BranchText:
    """What follows the shared prefix in one branch.

    Args:
        written: an answer grid that the model writes, scored token by token together with the end of its turn.
        shown: text that is only read.
        verdict: the word that is predicted last; ``None`` where nothing is asked.
        kind: what `written` counts as.
        trained: whether writing it is right, so that it is trained and not only scored.
        answer: place of the judged answer (`Answer.index`), -1 if none.
        correct: whether that answer is right.
    """

    written: str
    shown: str = ""
    verdict: str | None = None
    kind: Kind = Kind.OUTPUT_FROM_EXAMPLES
    trained: bool = True
    answer: int = -1
    correct: bool | None = None


@dataclass(frozen=True)
class PromptText:
    """A prompt in full.

    Args:
        prefix: ``(text, trained)`` segments; a trained one is an output grid and what ends it.
        branches: what may follow the prefix.
    """

    prefix: tuple[tuple[str, bool], ...]
    branches: tuple[BranchText, ...]

    def text(self, i: int, end: str) -> str:
        """Return the whole text of branch ``i``; ``end`` closes a turn that nothing follows."""
        branch = self.branches[i]
        tail = end if branch.verdict is None else branch.verdict
        return "".join(text for text, _ in self.prefix) + branch.written + branch.shown + tail


class Layout(ABC):
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
    def examples(self, episode: Episode, ending: str) -> tuple[tuple[str, bool], ...]:
        """Return demonstrations and query, up to what comes first in a branch of the prompt kind ``ending``."""

    @abstractmethod
    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[tuple[str, bool], ...]:
        """Return grids of one side of a task, up to the next one that is to be written."""

    @abstractmethod
    def options(self, grids: Sequence[Grid]) -> str:
        """Return numbered options and the question which is right."""

    @property
    @abstractmethod
    def asked_after_writing(self) -> str:
        """What stands between a written answer and its verdict, the end of its turn included."""

    @property
    @abstractmethod
    def asked_after_showing(self) -> str:
        """What stands between a shown answer and its verdict."""

    def render(self, episode: Episode, prompt: str) -> PromptText:
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
        kind, encode = PROMPTS[prompt], self.encoder.encode
        if kind is Kind.VERIFY_OUTPUT_FROM_EXAMPLES:
            if not episode.answers:
                raise ValueError(f"{episode.key}: {prompt} needs answers to judge")
            return self._verify(episode, writes=prompt.endswith("-v1"))
        if kind is Kind.SELECT_OUTPUT_FROM_EXAMPLES:
            return self._select(episode, prompt)
        if kind is Kind.INPUT_FROM_INPUTS:
            written, prefix = episode.query, self.series([p.input for p in episode.demonstrations], inputs=True)
        elif episode.output is None:
            raise ValueError(f"{episode.key}: {prompt} needs the right output")
        elif kind is Kind.OUTPUT_FROM_OUTPUTS:
            written, prefix = episode.output, self.series([p.output for p in episode.demonstrations], inputs=False)
        else:
            written, prefix = episode.output, self.examples(episode, "write")
        return PromptText(prefix, (BranchText(encode(written), kind=kind),))

    def _verify(self, episode: Episode, writes: bool) -> PromptText:
        branches = []
        for answer in episode.answers:
            about = {
                "verdict": self.no if answer.correct is False else self.yes,
                "answer": answer.index,
                "correct": answer.correct,
            }
            text = self.encoder.encode(answer.grid)
            if writes:
                branches.append(BranchText(text, self.asked_after_writing, trained=answer.correct is True, **about))
            else:
                branches.append(BranchText("", text + self.asked_after_showing, **about))
        return PromptText(self.examples(episode, "write" if writes else "verify"), tuple(branches))

    def _select(self, episode: Episode, prompt: str) -> PromptText:
        right = [i for i, answer in enumerate(episode.answers) if answer.correct]
        if not right or not 2 <= len(episode.answers) <= MAX_OPTIONS:
            raise ValueError(f"{episode.key}: {prompt} needs 2 to {MAX_OPTIONS} answers, a right one among them")
        shown = self.options([answer.grid for answer in episode.answers])
        branch = BranchText("", shown, self.numbers[right[0]], kind=PROMPTS[prompt])
        return PromptText(self.examples(episode, "select"), (branch,))


class ChatLayout(Layout):
    """Prompts in words, through a tokenizer's chat template.

    Args:
        tokenizer: has a chat template.
        encoder: how grids are written.
    """

    yes, no = "yes", "no"
    system = "You work out the hidden rule of puzzles whose grids are written as digits, a digit a colour."
    _endings = {
        "write": "\n\nWrite the output grid of the test.",
        "verify": "\n\nProposed output:\n",
        "select": "\n\nOne of these options is the output of the test.\n\n",
    }
    _question = "Is this output right? Answer yes or no."

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: GridEncoder) -> None:
        super().__init__(encoder)
        self._tokenizer = tokenizer

    def messages(self, *turns: str) -> list[dict[str, str]]:
        """Return a conversation: the system's text, then the user and the assistant in turn."""
        roles = ("user", "assistant") * len(turns)
        return [{"role": "system", "content": self.system}] + [
            {"role": role, "content": text} for role, text in zip(roles, turns, strict=False)
        ]

    @cached_property
    def _frames(self) -> list[str]:
        """What the chat template puts before, between and behind the four turns of a judged answer."""
        marks = [f"\N{REPLACEMENT CHARACTER}{i}" for i in range(4)]
        try:
            text = self._tokenizer.apply_chat_template(self.messages(*marks), tokenize=False)
            opening = self._tokenizer.apply_chat_template(
                self.messages(marks[0]), tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise DataError(f"the chat template refuses a system text and two questions: {error}") from error
        frames = []
        for mark in marks:
            before, found, text = text.partition(mark)
            frames.append(before)
            if not found:
                raise DataError("the chat template leaves out a turn of the conversation")
        if opening != frames[0] + marks[0] + frames[1]:
            raise DataError("the chat template writes an answered question in another way than one to be answered")
        return [*frames, text]

    @cached_property
    def end(self) -> str:
        """Text of the token that ends the assistant's turn."""
        ids = self._tokenizer(self._frames[2], add_special_tokens=False).input_ids
        return self._tokenizer.decode(ids[:1])

    @property
    def asked_after_writing(self) -> str:
        return self._frames[2] + self._question + self._frames[3]

    @property
    def asked_after_showing(self) -> str:
        return "\n\nIs the proposed output of the test right? Answer yes or no." + self._frames[1]

    def examples(self, episode: Episode, ending: str) -> tuple[tuple[str, bool], ...]:
        encode = self.encoder.encode
        parts = [(f"{self._frames[0]}One rule turns the input of each example into its output.\n\n", False)]
        for i, pair in enumerate(episode.demonstrations, 1):
            parts.append((f"# Example {i}\n\nInput:\n{encode(pair.input)}\n\nOutput:\n", False))
            parts.append((f"{encode(pair.output)}\n\n", i > 1))
        tail = f"# Test\n\nInput:\n{encode(episode.query)}{self._endings[ending]}"
        parts.append((tail + self._frames[1] if ending == "write" else tail, False))
        return tuple(parts)

    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[tuple[str, bool], ...]:
        side = "input" if inputs else "output"
        shown = "".join(f"\n\n# {side.title()} {i}\n\n{self.encoder.encode(g)}" for i, g in enumerate(grids, 1))
        opening = f"{self._frames[0]}These are {side} grids of one puzzle."
        return ((f"{opening}{shown}\n\nWrite another {side} grid of this puzzle.{self._frames[1]}", False),)

    def options(self, grids: Sequence[Grid]) -> str:
        shown = "".join(f"# Option {i}\n\n{self.encoder.encode(g)}\n\n" for i, g in enumerate(grids, 1))
        return f"{shown}Which option is right? Answer with its number.{self._frames[1]}"


class CompactLayout(Layout):
    """Prompts without words, in the compact vocabulary."""

    yes, no, end = compact.YES, compact.NO, compact.END
    pieces = compact.PIECES
    asked_after_writing = compact.END + compact.ASK
    asked_after_showing = compact.ASK
    _endings = {"write": compact.OUTPUT, "verify": compact.VERIFY, "select": compact.SELECT}

    def __init__(self, encoder: GridEncoder | None = None) -> None:
        super().__init__(encoder or CompactGridEncoder())

    def examples(self, episode: Episode, ending: str) -> tuple[tuple[str, bool], ...]:
        encode, parts, opening = self.encoder.encode, [], compact.TASK
        for i, pair in enumerate(episode.demonstrations):
            parts.append((f"{opening}{compact.INPUT}{encode(pair.input)}{compact.OUTPUT}", False))
            parts.append((encode(pair.output) + compact.END, i > 0))
            opening = ""
        parts.append((f"{opening}{compact.INPUT}{encode(episode.query)}{self._endings[ending]}", False))
        return tuple(parts)

    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[tuple[str, bool], ...]:
        opening, mark = (compact.INPUTS, compact.INPUT) if inputs else (compact.OUTPUTS, compact.OUTPUT)
        return ((opening + "".join(f"{mark}{self.encoder.encode(g)}{compact.END}" for g in grids) + mark, False),)

    def options(self, grids: Sequence[Grid]) -> str:
        return "".join(f"{compact.OPTION}{self.encoder.encode(g)}" for g in grids) + compact.ASK
