"""Prompts in words, through a tokenizer's chat template.

Knows episodes, chat templates and what is said to a model. Knows nothing of token ids or models.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lightning_arc.arc.grid import DataError, Grid
from lightning_arc.arc.task import Episode, Pair
from lightning_arc.prompt.encoders import GridEncoder
from lightning_arc.prompt.layouts import BranchText, Layout, Part, PromptText
from lightning_arc.prompt.tree import Kind

_TEST = "# Test\n\nInput:\n"


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

    def examples(self, episode: Episode, ending: str) -> tuple[Part, ...]:
        opening = Part(f"{self._frames[0]}One rule turns the input of each example into its output.\n\n")
        tail = self._endings[ending] + (self._frames[1] if ending == "write" else "")
        return (opening, *self._shown(episode.demonstrations), Part(_TEST), Part(tail, episode.query))

    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[Part, ...]:
        side = "input" if inputs else "output"
        parts = [Part(f"{self._frames[0]}These are {side} grids of one puzzle.\n\n")]
        for i, grid in enumerate(grids, 1):
            parts += [Part(f"# {side.title()} {i}\n\n"), Part("\n\n", grid)]
        return (*parts, Part(f"Write another {side} grid of this puzzle.{self._frames[1]}"))

    def options(self, grids: Sequence[Grid]) -> tuple[Part, ...]:
        parts = []
        for i, grid in enumerate(grids, 1):
            parts += [Part(f"# Option {i}\n\n"), Part("\n\n", grid)]
        return (*parts, Part(f"Which option is right? Answer with its number.{self._frames[1]}"))

    def program(self, episode: Episode, kind: Kind) -> PromptText:
        frame, asked, block = self._frames[0], self._frames[1], f"```python\n{episode.code}\n```"
        if kind is Kind.CODE_FROM_EXAMPLES:
            opening = Part(f"{frame}A Python program turns the input of each example into its output.\n\n")
            prefix = (opening, *self._shown(episode.demonstrations), Part(f"Write the program.{asked}"))
            return PromptText(prefix, (BranchText(Part(block, free=True), kind=kind),))
        opening = Part(f"{frame}This Python program makes the output grids of a puzzle from its input grids.\n\n")
        shown = Part(f"{block}\n\n", free=True)
        if kind is Kind.OUTPUT_FROM_CODE:
            query = Part(f"\n\nWrite the output grid.{asked}", episode.query)
            return PromptText((opening, shown, Part("# Input\n\n"), query), (_written(episode.output, kind),))
        return PromptText(
            (opening, shown, Part(f"Write an input grid for it.{asked}")), (_written(episode.query, kind),)
        )

    def _shown(self, pairs: Sequence[Pair]) -> Iterator[Part]:
        for i, pair in enumerate(pairs, 1):
            yield Part(f"# Example {i}\n\nInput:\n")
            yield Part("\n\nOutput:\n", pair.input)
            yield Part("\n\n", pair.output, trained=i > 1)


def _written(grid: Grid, kind: Kind) -> BranchText:
    return BranchText(Part(grid=grid), kind=kind)
