"""Prompts in words, through a tokenizer's chat template."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_arc.arc.grid import Grid
from lightning_arc.arc.task import Episode, Pair
from lightning_arc.prompt.chat_template import own_template, turn_frames
from lightning_arc.prompt.grid_encoders import GridEncoder
from lightning_arc.prompt.templates import PromptTemplate, RenderedBranch, RenderedPrompt, Segment
from lightning_arc.prompt.tokenizer import decoded
from lightning_arc.prompt.tree import PromptKind

_TEST = "# Test\n\nInput:\n"


class ChatTemplatePrompt(PromptTemplate):
    """Prompts in words, through a tokenizer's chat template.

    Args:
        tokenizer: whose tokens the template uses.
        encoder: how grids are written.
        template: a chat template; ``None`` for the tokenizer's own, or ChatML.
        arguments: further names that the template uses.

    Raises:
        DataError: if there is no template, or it does not fit.
    """

    yes, no = "yes", "no"
    system = "You work out the hidden rule of puzzles whose grids are written as digits, a digit a colour."
    _endings = {
        "write": "\n\nWrite the output grid of the test.",
        "verify": "\n\nProposed output:\n",
        "select": "\n\nOne of these options is the output of the test.\n\n",
    }
    _question = "Is this output right? Answer yes or no."

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder: GridEncoder,
        template: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(encoder)
        self.template, self.arguments = template or own_template(tokenizer), dict(arguments or {})
        self.frames = turn_frames(tokenizer, self.template, self.arguments, self.system)
        self.end = decoded(tokenizer, tokenizer(self.frames.question, add_special_tokens=False).input_ids[:1])

    @property
    def question_after_writing(self) -> str:
        return self.frames.question + self._question + self.frames.answer

    @property
    def question_after_showing(self) -> str:
        return "\n\nIs the proposed output of the test right? Answer yes or no." + self.frames.answer

    def examples(self, episode: Episode, ending: str) -> tuple[Segment, ...]:
        opening = Segment(f"{self.frames.opening}One rule turns the input of each example into its output.\n\n")
        tail = self._endings[ending] + (self.frames.answer if ending == "write" else "")
        return (opening, *self._shown(episode.demonstrations), Segment(_TEST), Segment(tail, episode.query))

    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[Segment, ...]:
        side = "input" if inputs else "output"
        segments = [Segment(f"{self.frames.opening}These are {side} grids of one puzzle.\n\n")]
        for i, grid in enumerate(grids, 1):
            segments += [Segment(f"# {side.title()} {i}\n\n"), Segment("\n\n", grid)]
        return (*segments, Segment(f"Write another {side} grid of this puzzle.{self.frames.answer}"))

    def options(self, grids: Sequence[Grid]) -> tuple[Segment, ...]:
        segments = []
        for i, grid in enumerate(grids, 1):
            segments += [Segment(f"# Option {i}\n\n"), Segment("\n\n", grid)]
        return (*segments, Segment(f"Which option is right? Answer with its number.{self.frames.answer}"))

    def program(self, episode: Episode, kind: PromptKind) -> RenderedPrompt:
        frame, answer, block = self.frames.opening, self.frames.answer, f"```python\n{episode.code}\n```"
        if kind is PromptKind.CODE_FROM_EXAMPLES:
            opening = Segment(f"{frame}A Python program turns the input of each example into its output.\n\n")
            prefix = (opening, *self._shown(episode.demonstrations), Segment(f"Write the program.{answer}"))
            return RenderedPrompt(prefix, (RenderedBranch(Segment(block, free=True), kind=kind),))
        opening = Segment(f"{frame}This Python program makes the output grids of a puzzle from its input grids.\n\n")
        shown = Segment(f"{block}\n\n", free=True)
        if kind is PromptKind.OUTPUT_FROM_CODE:
            query = Segment(f"\n\nWrite the output grid.{answer}", episode.query)
            branch = _written(episode.known_output, kind)
            return RenderedPrompt((opening, shown, Segment("# Input\n\n"), query), (branch,))
        return RenderedPrompt(
            (opening, shown, Segment(f"Write an input grid for it.{answer}")), (_written(episode.query, kind),)
        )

    def _shown(self, pairs: Sequence[Pair]) -> Iterator[Segment]:
        for i, pair in enumerate(pairs, 1):
            yield Segment(f"# Example {i}\n\nInput:\n")
            yield Segment("\n\nOutput:\n", pair.input)
            yield Segment("\n\n", pair.known_output, trained=i > 1)


def _written(grid: Grid, kind: PromptKind) -> RenderedBranch:
    return RenderedBranch(Segment(grid=grid), kind=kind)
