"""The prompter: episodes as token trees, through one tokenizer.

Knows layouts and token ids. Knows nothing of datasets or models.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_arc.arc.grid import DataError, Grid, as_grid
from lightning_arc.arc.task import Answer, Episode, Pair, PairKey
from lightning_arc.prompt.chat_layout import ChatLayout
from lightning_arc.prompt.compact import is_compact
from lightning_arc.prompt.compact_layout import CompactLayout
from lightning_arc.prompt.encoders import (
    CompactGridEncoder,
    GridEncoder,
    GridShapeEncoder,
    MinimalGridEncoder,
    RowNumberEncoder,
)
from lightning_arc.prompt.layouts import FROM_CODE, PROMPTS, SELECT, BranchText, Layout, Part
from lightning_arc.prompt.parser import parse_encoder
from lightning_arc.prompt.parts import PartTokenizer, Template
from lightning_arc.prompt.pieces import PieceTokenizer
from lightning_arc.prompt.tree import IGNORE, Branch, Kind, TokenTree

_GRID = as_grid((np.arange(132) * 7 // 3 % 10).reshape(11, 12))
_EXAMPLE = Episode(
    PairKey("example", "test", 0),
    (Pair(_GRID, _GRID.T),),
    _GRID,
    _GRID.T,
    (Answer(_GRID.T, True), Answer(_GRID, False)),
    code="def turn(grid):\n    return [*zip(*grid)]  # 90 degrees, 1 time\n",
)


class Prompter:
    """Turns episodes into token trees.

    Args:
        tokenizer: one with the compact vocabulary, or one with a chat template.
        grid_encoder: how grids are written, as an encoder or its string form. By default
            ``GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))`` in chats and ``CompactGridEncoder()`` in
            the compact vocabulary, which takes no other.
        kept: ids of a trimmed vocabulary, sorted; the tokens of trees are then places among them.

    Raises:
        DataError: if the tokenizer has neither, joins digits with their neighbours, writes a verdict in two tokens, or
            gives other ids for a whole prompt than for its pieces.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        grid_encoder: GridEncoder | str | None = None,
        kept: NDArray[np.int32] | None = None,
    ) -> None:
        if isinstance(grid_encoder, str):
            grid_encoder = parse_encoder(grid_encoder)
        self.tokenizer, self.kept = tokenizer, kept
        self.layout: Layout
        if is_compact(tokenizer):
            if grid_encoder is not None and not isinstance(grid_encoder, CompactGridEncoder):
                raise DataError(
                    f"grid_encoder {grid_encoder}: a model with the compact vocabulary takes CompactGridEncoder() only"
                )
            self.layout = CompactLayout(grid_encoder)
        elif tokenizer.chat_template:
            default = GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))
            self.layout = ChatLayout(tokenizer, grid_encoder or default)
        else:
            raise DataError(f"{tokenizer.name_or_path}: the tokenizer has no chat template (tokenizer_config.json)")
        self.grid_encoder = self.layout.encoder
        self._parts = PartTokenizer(
            PieceTokenizer(tokenizer, self.grid_encoder.symbols, self.layout.pieces, kept), self.grid_encoder
        )
        self.yes_id, self.no_id = self._single(self.layout.yes), self._single(self.layout.no)
        self.choice_ids = [self._single(number) for number in self.layout.numbers]
        self.end_id = self._single(self.layout.end)
        self._prove()

    def tree(
        self, episode: Episode, prompt: str, right_share: float = 0.5, learn_demonstrations: bool = False
    ) -> TokenTree:
        """Make the token tree of an episode.

        Args:
            episode: what to show. Verification has a branch for every answer; selection shows them in their order.
            prompt: name and version, see `PROMPTS`.
            right_share: share of the verdicts' loss weight that right answers have together; wrong ones have the rest.
                It is the expected loss of drawing one answer, right with this probability.
            learn_demonstrations: train the output grids of demonstrations in the prefix too, from the second on.

        Raises:
            DataError: if there is no such prompt.
            ValueError: if the episode lacks what the prompt needs.
        """
        rendered = self.layout.render(episode, prompt)
        ids, targets = self._prefix(rendered.prefix, learn_demonstrations)
        weights = self._verdict_weights(rendered.branches, right_share)
        branches = [self._branch(ids[-1:], b, w) for b, w in zip(rendered.branches, weights, strict=True)]
        return TokenTree(ids[:-1], targets[:-1], tuple(branches), prompt)

    def selections(self, episode: Episode, orders: Sequence[Sequence[int]]) -> TokenTree:
        """Make one token tree of many selections among an episode's answers.

        Args:
            episode: its answers are the options.
            orders: by branch, the places in the episode's answers of the options as they are shown.

        Returns:
            A tree whose branch ``i`` shows ``orders[i]``. The last position of each, its only target, predicts the
            number of the chosen option, one of the first ``len(orders[i])`` of `choice_ids`. The target is the right
            one's; where none is known to be right, it is the first one's and has no weight.

        Raises:
            ValueError: if an order has another number of options than 2 to 9, or one twice.
        """
        rendered = self.layout.selections(episode, orders)
        ids, targets = self._prefix(rendered.prefix, learn=False)
        weight = 1 / max(sum(branch.trained for branch in rendered.branches), 1)
        branches = [self._branch(ids[-1:], b, weight if b.trained else 0.0) for b in rendered.branches]
        return TokenTree(ids[:-1], targets[:-1], tuple(branches), SELECT)

    def write(self, grid: Grid) -> NDArray[np.int32]:
        """Return the token ids of a grid as an answer, without the token ``end_id`` that ends it."""
        return self._parts.grid(grid)

    def read(self, tokens: NDArray[np.int64]) -> Grid:
        """Return the grid that a model wrote, the token that ends it left out.

        Raises:
            DecodeError: if it is none.
        """
        return self.grid_encoder.decode(self.tokenizer.decode(tokens if self.kept is None else self.kept[tokens]))

    def opening(self, episode: Episode) -> NDArray[np.int32]:
        """Return the token ids of a prompt up to the output that is to be written."""
        return np.concatenate([self._parts.ids(part) for part in self.layout.examples(episode, "write")])

    def template(self, height: int, width: int) -> Template:
        """Return the ids of grids of one shape, where a cell is one token."""
        return self._parts.template(height, width, "")

    @property
    def colour_ids(self) -> NDArray[np.int32] | None:
        """The ``(10,)`` ids of the colours; ``None`` where a cell is not always one token of its own."""
        return self._parts.colour_ids

    @property
    def writes_code(self) -> bool:
        """Whether programs can be written in prompts, which takes a tokenizer of text with all its tokens."""
        return isinstance(self.layout, ChatLayout) and self.kept is None

    def text(self, episode: Episode, prompt: str, i: int = 0) -> str:
        """Return the whole text of branch ``i``, as the text tokenizer would be given it."""
        return self.layout.text(self.layout.render(episode, prompt), i)

    def _prove(self) -> None:
        """Compare one example of every prompt with the text tokenizer's ids of the whole text."""
        for prompt, kind in PROMPTS.items():
            if kind in FROM_CODE and not self.writes_code:
                continue
            tree = self.tree(_EXAMPLE, prompt)
            for i in range(len(tree.branches)):
                whole = self.tokenizer(self.text(_EXAMPLE, prompt, i), add_special_tokens=False).input_ids
                ids = tree.sequence(i)
                if (ids if self.kept is None else self.kept[ids]).tolist() != whole:
                    raise DataError(
                        f"{self.tokenizer.name_or_path}: the tokenizer writes {prompt} with {self.grid_encoder} as a "
                        "whole in another way than in pieces"
                    )

    def _prefix(self, parts: Sequence[Part], learn: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the prefix's ids and trained targets, each ``(P + 1,)`` with the last prompt token."""
        pieces = [self._parts.ids(part) for part in parts]
        ids = np.concatenate(pieces)
        targets = np.full(len(ids), IGNORE, np.int32)
        stop = 0
        for part, piece in zip(parts, pieces, strict=True) if learn else ():
            start, stop = stop, stop + len(piece)
            if part.trained:
                targets[start - 1 : stop - 1] = piece
        return ids, targets

    def _branch(self, first: NDArray[np.int32], text: BranchText, verdict_weight: float) -> Branch:
        pieces = [first, *([] if text.written is None else [self._parts.ids(text.written)])]
        tokens = np.concatenate([*pieces, *map(self._parts.ids, text.shown)])
        n, n_written = len(tokens), 0 if text.written is None else len(pieces[1])
        targets = np.full(n, IGNORE, np.int32)
        kinds = np.full(n, text.kind, np.int8)
        weights = np.zeros(n, np.float32)
        if n_written:
            targets[:n_written] = pieces[1]
            targets[n_written] = self.end_id
            weights[: n_written + 1] = text.trained
        if text.verdict is not None:
            judged = Kind.VERIFY_OUTPUT_FROM_EXAMPLES
            targets[-1] = self._parts.text(text.verdict)[0]
            kinds[-1] = text.kind if text.kind is Kind.SELECT_OUTPUT_FROM_EXAMPLES else judged
            weights[-1] = verdict_weight
        return Branch(tokens, targets, kinds, weights, text.answer, text.correct)

    @staticmethod
    def _verdict_weights(branches: Sequence[BranchText], right_share: float) -> list[float]:
        if len(branches) == 1 and branches[0].answer < 0:
            return [1.0]
        right, wrong = (sum(b.correct is value for b in branches) for value in (True, False))
        weight = {True: right_share / max(right, 1), False: (1 - right_share) / max(wrong, 1), None: 0.0}
        return [weight[b.correct] for b in branches]

    def _single(self, text: str) -> int:
        ids = self._parts.pieces.array(text)
        if len(ids) != 1:
            raise DataError(f"the tokenizer writes {text!r} in {len(ids)} tokens, one is needed")
        return int(ids[0])
