"""Token ids from pieces: the text tokenizer's ids without running it on whole prompts.

A tokenizer that keeps every digit apart from what surrounds it (Qwen's does) gives the same ids for what stands between
two digits wherever it stands. Such a gap is tokenized once and looked up from then on; a prompt is then a sequence of
dictionary look-ups.
"""

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_arc.errors import DataError

PROBES = ("01", "0 1", "0\n1", "0\n\n1", "a0b", "0  1", "0|1", "x: 12x3\n0 4", "``0\n``", "0.5", "-0", "0's")
MAX_GAPS = 100_000


class _Gaps(dict):
    """Ids of each piece; a missing one is tokenized between two digits, which are cut off again."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(self._tokenizer(f"0{piece}0", add_special_tokens=False).input_ids[1:-1])
        if len(self) < MAX_GAPS:
            self[piece] = ids
        return ids


class PieceTokenizer:
    """Gives a text's token ids, equal to ``tokenizer(text, add_special_tokens=False).input_ids``.

    Args:
        tokenizer: any Hugging Face tokenizer that keeps digits apart.
        symbols: further cell characters; texts are cut at them too if the tokenizer keeps every one of them apart.
        pattern: a regular expression of all pieces, for a vocabulary whose tokens are never joined.
        kept: ids of a trimmed vocabulary; `array` then gives a token's place among them.

    Raises:
        DataError: if it joins a digit with a neighbour.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        symbols: str = "",
        pattern: str | None = None,
        kept: NDArray[np.int32] | None = None,
    ) -> None:
        self.tokenizer, self.kept = tokenizer, kept
        broken = [probe for probe in PROBES if not self._keeps_apart(probe, "0123456789")]
        if broken:
            name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
            raise DataError(f"{name}: the tokenizer joins digits with their neighbours ({broken[0]!r}), as none may")
        extra = "".join(s for s in symbols if not s.isascii())
        neighbours = [{48: one, 49: other} for one, other in zip(extra, extra[1:] + extra[:1], strict=True)]
        if not all(self._keeps_apart(probe.translate(pair), extra) for pair in neighbours for probe in PROBES):
            extra = ""
        self.has_symbols = pattern is not None or all(s.isascii() and s.isdigit() or s in extra for s in symbols)
        """Whether every symbol is a piece of its own wherever it stands."""
        cuts = "0-9" + re.escape(extra)
        self._pieces = re.compile(pattern or f"[{cuts}]|[^{cuts}]+").findall
        self._gaps = _Gaps(tokenizer)
        self._last: dict[str, tuple[int, ...]] = {}

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _keeps_apart(self, probe: str, cuts: str) -> bool:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or backend.pre_tokenizer is None:
            return False
        words = backend.pre_tokenizer.pre_tokenize_str(probe)
        return all(end - start == 1 for _, (start, end) in words if any(c in cuts for c in probe[start:end]))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``."""
        pieces: Sequence[str] = self._pieces(text)
        if not pieces:
            return []
        last = pieces[-1]
        if last not in self._last:
            # Nothing follows the last piece, and the tokenizer looks ahead over white space.
            if len(self._last) >= MAX_GAPS:
                self._last.clear()
            self._last[last] = self._ids(f"0{last}")[1:]
        return [*chain.from_iterable(map(self._gaps.__getitem__, pieces[:-1])), *self._last[last]]

    def array(self, text: str) -> NDArray[np.int32]:
        """Return the token ids of ``text`` as an ``int32`` array, in a trimmed vocabulary their places.

        Raises:
            DataError: names a token that is not in the trimmed vocabulary.
        """
        return among_kept(np.array(self.encode(text), dtype=np.int32), self.kept, self.tokenizer)


def among_kept(
    ids: NDArray[np.int32], kept: NDArray[np.int32] | None, tokenizer: PreTrainedTokenizerBase
) -> NDArray[np.int32]:
    """Return the places of ids among those of a trimmed vocabulary; the ids themselves where there is none.

    Raises:
        DataError: names a token that is not in it.
    """
    if kept is None:
        return ids
    places = np.searchsorted(kept, ids).clip(max=len(kept) - 1)
    missing = ids[kept[places] != ids]
    if len(missing):
        token = tokenizer.decode(missing[:1])
        raise DataError(f"model.trim_vocabulary: the token {token!r} is not among the {len(kept)} that are kept")
    return places.astype(np.int32)
