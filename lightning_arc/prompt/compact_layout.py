"""Prompts without words, in the compact vocabulary.

Knows episodes and the compact vocabulary's tokens. Knows nothing of token ids or models.
"""

from collections.abc import Sequence

from lightning_arc.arc.grid import Grid
from lightning_arc.arc.task import Episode
from lightning_arc.errors import DataError
from lightning_arc.prompt import compact
from lightning_arc.prompt.encoders import CompactGridEncoder, GridEncoder
from lightning_arc.prompt.layouts import Layout, Part, PromptText
from lightning_arc.prompt.tree import Kind


class CompactLayout(Layout):
    """Prompts without words, in the compact vocabulary."""

    yes, no, end = compact.YES, compact.NO, compact.END
    pieces = compact.PIECES
    asked_after_writing = compact.END + compact.ASK
    asked_after_showing = compact.ASK
    _endings = {"write": compact.OUTPUT, "verify": compact.VERIFY, "select": compact.SELECT}

    def __init__(self, encoder: GridEncoder | None = None) -> None:
        super().__init__(encoder or CompactGridEncoder())

    def examples(self, episode: Episode, ending: str) -> tuple[Part, ...]:
        parts = [Part(compact.TASK)]
        for i, pair in enumerate(episode.demonstrations):
            parts += [Part(compact.INPUT), Part(compact.OUTPUT, pair.input), Part(compact.END, pair.output, i > 0)]
        return (*parts, Part(compact.INPUT), Part(self._endings[ending], episode.query))

    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[Part, ...]:
        opening, mark = (compact.INPUTS, compact.INPUT) if inputs else (compact.OUTPUTS, compact.OUTPUT)
        return (Part(opening + mark), *(Part(compact.END + mark, grid) for grid in grids))

    def options(self, grids: Sequence[Grid]) -> tuple[Part, ...]:
        return (*(part for grid in grids for part in (Part(compact.OPTION), Part("", grid))), Part(compact.ASK))

    def program(self, episode: Episode, kind: Kind) -> PromptText:
        raise DataError(f"{kind.label}: the compact vocabulary writes no code; a model with a text tokenizer is needed")
