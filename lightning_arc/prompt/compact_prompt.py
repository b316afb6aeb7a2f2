"""Prompts without words, in the compact vocabulary."""

from collections.abc import Sequence

from lightning_arc.arc.grid import Grid
from lightning_arc.arc.task import Episode
from lightning_arc.errors import DataError
from lightning_arc.prompt import compact
from lightning_arc.prompt.grid_encoders import CompactGridEncoder, GridEncoder
from lightning_arc.prompt.templates import PromptTemplate, RenderedPrompt, Segment
from lightning_arc.prompt.tree import PromptKind


class CompactPrompt(PromptTemplate):
    """Prompts without words, in the compact vocabulary."""

    yes, no, end = compact.YES, compact.NO, compact.END
    pieces = compact.PIECES
    question_after_writing = compact.END + compact.ASK
    question_after_showing = compact.ASK
    _endings = {"write": compact.OUTPUT, "verify": compact.VERIFY, "select": compact.SELECT}

    def __init__(self, encoder: GridEncoder | None = None) -> None:
        super().__init__(encoder or CompactGridEncoder())

    def examples(self, episode: Episode, ending: str) -> tuple[Segment, ...]:
        segments = [Segment(compact.TASK)]
        for i, pair in enumerate(episode.demonstrations):
            segments += [
                Segment(compact.INPUT),
                Segment(compact.OUTPUT, pair.input),
                Segment(compact.END, pair.known_output, i > 0),
            ]
        return (*segments, Segment(compact.INPUT), Segment(self._endings[ending], episode.query))

    def series(self, grids: Sequence[Grid], inputs: bool) -> tuple[Segment, ...]:
        opening, mark = (compact.INPUTS, compact.INPUT) if inputs else (compact.OUTPUTS, compact.OUTPUT)
        return (Segment(opening + mark), *(Segment(compact.END + mark, grid) for grid in grids))

    def options(self, grids: Sequence[Grid]) -> tuple[Segment, ...]:
        return (
            *(segment for grid in grids for segment in (Segment(compact.OPTION), Segment("", grid))),
            Segment(compact.ASK),
        )

    def program(self, episode: Episode, kind: PromptKind) -> RenderedPrompt:
        raise DataError(f"{kind.label}: the compact vocabulary writes no code; a model with a text tokenizer is needed")
