"""Token ids of whole turns, for tokenizers whose pieces do not add up to a text: exact, and slower than from pieces.

Every tokenizer cuts a text at its special tokens before anything else. So a prompt is cut only there, and the token at
which a part of it begins or ends is found by the tokenizer's offset mapping.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_arc.arc.grid import N_COLOURS, as_grid
from lightning_arc.errors import DataError
from lightning_arc.prompt.chat_template import Frames, name_of
from lightning_arc.prompt.grid_encoders import GridEncoder
from lightning_arc.prompt.pieces import among_kept

MAX_TURNS = 4096
MAX_REMEMBERED = 1000
"""Most characters of a turn that is remembered; longer ones hold grids and hardly come again."""


class TurnTokenizer:
    """Gives a text's token ids, equal to ``tokenizer(text, add_special_tokens=False).input_ids``.

    Args:
        tokenizer: returns offset mappings, as all that have a ``tokenizer.json`` do.
        kept: ids of a trimmed vocabulary; if given, a token's place among them is returned.

    Raises:
        DataError: if it returns no offset mappings.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, kept: NDArray[np.int32] | None = None) -> None:
        if not tokenizer.is_fast:
            raise DataError(
                f"{name_of(tokenizer)}: the tokenizer does not tell where its tokens stand, as one with a "
                "tokenizer.json does"
            )
        self.tokenizer, self.kept = tokenizer, kept
        # Before anything else, texts are cut at these. Some also take white space or look at what stands before them.
        tokens = [t for t in tokenizer.added_tokens_decoder.values() if not t.normalized and not t.single_word]
        names = sorted((re.escape(token.content) for token in tokens), key=len, reverse=True)
        self._special = re.compile("|".join(names) or r"(?!)")
        self._cuts = {token.content for token in tokens if not token.lstrip}
        self._memory: dict[str, tuple[NDArray[np.int32], NDArray[np.int64]]] = {}

    def encode(self, text: str, places: Sequence[int] = ()) -> tuple[NDArray[np.int32], list[int]]:
        """Return the ids of a text, and how many of its tokens end at or before each of some places in it."""
        starts = [found.start() for found in self._special.finditer(text) if found.group() in self._cuts]
        turns = [(start, *self._turn(text[start:stop])) for start, stop in pairwise(sorted({0, *starts, len(text)}))]
        ids = np.concatenate([np.zeros(0, np.int32), *(ids for _, ids, _ in turns)])
        stops = []
        for place in places:
            stops.append(sum(int(np.searchsorted(ends, place - start, "right")) for start, _, ends in turns))
        return among_kept(ids, self.kept, self.tokenizer), stops

    def head(self, text: str) -> int:
        """Return where the last turn of a text begins, which is not tokenized without what follows it."""
        starts = [found.start() for found in self._special.finditer(text) if found.group() in self._cuts]
        return starts[-1] if starts else 0

    def _turn(self, turn: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of a turn, and where each of its tokens ends."""
        if turn in self._memory:
            return self._memory[turn]
        made = self.tokenizer(turn, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = np.array([end for _, end in made.offset_mapping], np.int64)
        result = np.array(made.input_ids, np.int32), np.maximum.accumulate(ends)
        if len(turn) <= MAX_REMEMBERED and len(self._memory) < MAX_TURNS:
            self._memory[turn] = result
        return result


class AnswerTokenizer:
    """Gives the ids of a text as the assistant's answer, cut out of its turn.

    Args:
        turns: the tokenizer.
        frames: what stands around an answer.
    """

    has_symbols = True
    """Whether a cell's token is the same wherever it stands; `SegmentTokenizer.check` looks at it here."""

    def __init__(self, turns: TurnTokenizer, frames: Frames) -> None:
        self.turns, self.frames, self.tokenizer = turns, frames, turns.tokenizer

    def array(self, text: str) -> NDArray[np.int32]:
        """Return the ``int32`` ids of an answer; its first token may include characters on the answer's left."""
        start = len(self.frames.answer)
        whole = f"{self.frames.answer}{text}{self.frames.question}"
        ids, (first, last) = self.turns.encode(whole, [start, start + len(text)])
        return ids[first:last]

    def refuse_joined_cells(self, encoder: GridEncoder) -> None:
        """Raise a `DataError` that names the remedy if one token holds two cells, or parts of two."""
        digits = encoder.symbols.isascii() and encoder.symbols.isdigit()
        remedy = (
            "that writes them without digits, such as data.grid_encoder: "
            "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder()))"
            if digits
            else "with other symbols, or with a separator: data.grid_encoder: GridWithSeparationEncoder(' ')"
        )
        pairs = as_grid([[c for other in range(N_COLOURS) for c in (row, other)] for row in range(N_COLOURS)])
        for grid in (pairs, pairs[:, :3], pairs[:1, :11]):
            text, other = encoder.encode(grid), encoder.encode((grid + 1) % N_COLOURS)
            places = [i for i, (a, b) in enumerate(zip(text, other, strict=True)) if a != b]
            cell_of = {place: i * grid.size // len(places) for i, place in enumerate(places)}
            made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for token_id, (start, stop) in zip(made.input_ids, made.offset_mapping, strict=True):
                if len({cell_of[place] for place in range(start, stop) if place in cell_of}) > 1:
                    token = self.tokenizer.decode([token_id])
                    raise DataError(
                        f"{name_of(self.tokenizer)}: the tokenizer joins cells of {encoder} in one token "
                        f"({token!r}); take one {remedy}"
                    )
