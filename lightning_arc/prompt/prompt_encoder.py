"""The prompt encoder: turns episodes into token trees with one tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_arc.arc.grid import N_COLOURS, Grid, as_grid, same_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.errors import DataError
from lightning_arc.prompt.branches import labelled_branch, tree_of_turns
from lightning_arc.prompt.chat_prompt import ChatTemplatePrompt
from lightning_arc.prompt.chat_template import REMEDY, name_of
from lightning_arc.prompt.compact import is_compact
from lightning_arc.prompt.compact_prompt import CompactPrompt
from lightning_arc.prompt.grid_encoders import (
    CompactGridEncoder,
    GridEncoder,
    GridShapeEncoder,
    MinimalGridEncoder,
    RowNumberEncoder,
)
from lightning_arc.prompt.parser import parse_encoder
from lightning_arc.prompt.pieces import PieceTokenizer
from lightning_arc.prompt.positions import (
    GridRows,
    placed_parts,
    positions_of_turns,
    tree_of_turns_with_positions,
    tree_positions,
)
from lightning_arc.prompt.segments import SegmentTokenizer, Template
from lightning_arc.prompt.templates import (
    FROM_CODE,
    PROMPTS,
    SELECT,
    PromptTemplate,
    RenderedBranch,
    RenderedPrompt,
    Segment,
)
from lightning_arc.prompt.tokenizer import decoded
from lightning_arc.prompt.tree import IGNORE, Branch, TokenTree
from lightning_arc.prompt.turns import AnswerTokenizer, TurnTokenizer

_GRID = as_grid((np.arange(132) * 7 // 3 % 10).reshape(11, 12))
_EXAMPLE = Episode(
    PairKey("example", "test", 0),
    (Pair(_GRID, _GRID.T),),
    _GRID,
    _GRID.T,
    (LabeledCandidate(_GRID.T, True), LabeledCandidate(_GRID, False)),
    code="def turn(grid):\n    return [*zip(*grid)]  # 90 degrees, 1 time\n",
)


class PromptEncoder:
    """Turns episodes into token trees.

    Args:
        tokenizer: one with the compact vocabulary, or one with a chat template.
        grid_encoder: how grids are written, as an encoder or its string form. By default
            ``GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))`` in chats and ``CompactGridEncoder()`` in
            the compact vocabulary, which takes no other.
        kept: ids of a trimmed vocabulary, sorted; the tokens of trees are then places among them.
        chat_template: text of a Jinja template for chats; ``None`` for the tokenizer's own, or ChatML.
        chat_template_kwargs: further names that the template uses.
        grid_positions: whether tokens have positions in three parts.

    Raises:
        DataError: if there is no template or it does not fit, or if the tokenizer joins cells or writes a verdict in
            two tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        grid_encoder: GridEncoder | str | None = None,
        kept: NDArray[np.int32] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        grid_positions: bool = False,
    ) -> None:
        if isinstance(grid_encoder, str):
            grid_encoder = parse_encoder(grid_encoder)
        self.tokenizer, self.kept, self.grid_positions = tokenizer, kept, grid_positions
        self.template: PromptTemplate
        if is_compact(tokenizer):
            if grid_encoder is not None and not isinstance(grid_encoder, CompactGridEncoder):
                raise DataError(
                    f"grid_encoder {grid_encoder}: a model with the compact vocabulary takes CompactGridEncoder() only"
                )
            if chat_template is not None or chat_template_kwargs:
                raise DataError("data.chat_template: a model with the compact vocabulary takes none")
            self.template = CompactPrompt(grid_encoder)
        else:
            default = GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))
            self.template = ChatTemplatePrompt(tokenizer, grid_encoder or default, chat_template, chat_template_kwargs)
        self.grid_encoder = self.template.encoder
        self._answers: AnswerTokenizer | None = None
        try:
            self._begin(PieceTokenizer(tokenizer, self.grid_encoder.symbols, self.template.pieces, kept))
        except DataError:
            if not isinstance(self.template, ChatTemplatePrompt):
                raise
            self._answers = AnswerTokenizer(TurnTokenizer(tokenizer, kept), self.template.frames)
            self._begin(self._answers)

    def _begin(self, pieces: PieceTokenizer | AnswerTokenizer) -> None:
        """Set the tokenizer of texts, and prove that its ids are right."""
        self._parts = SegmentTokenizer(pieces, self.grid_encoder)
        self.yes_id, self.no_id = self._single(self.template.yes), self._single(self.template.no)
        self.choice_ids = [self._single(number) for number in self.template.numbers]
        if isinstance(pieces, AnswerTokenizer):
            self.end_id = int(pieces.turns.encode(pieces.frames.question)[0][0])
            pieces.refuse_joined_cells(self.grid_encoder)
            self._parts.check()
            self._prove_answers(pieces)
        else:
            self.end_id = self._single(self.template.end)
        if self.grid_positions:
            self._parts.rows = GridRows(self.tokenizer, self.grid_encoder, self.write, self.kept)
        self._prove()

    @property
    def conversation(self) -> list[str]:
        """Texts around the turns of a chat, which are in every prompt; empty in the compact vocabulary."""
        frames = self.template.frames if isinstance(self.template, ChatTemplatePrompt) else None
        return [] if frames is None else [frames.opening, frames.answer, frames.question]

    @property
    def by_turns(self) -> bool:
        """Whether whole turns are tokenized, because the tokenizer's pieces do not add up to a text."""
        return self._answers is not None

    def tree(
        self, episode: Episode, prompt: str, right_share: float = 0.5, learn_demonstrations: bool = False
    ) -> TokenTree:
        """Make the token tree of an episode.

        Args:
            episode: what to show. Verification has a branch for every answer; selection shows them in their order.
            prompt: name and version, see `PROMPTS`.
            right_share: share of the verdicts' loss weight that goes to right answers; wrong ones get the rest. The
                loss is then that expected from drawing one answer, a right one with this probability.
            learn_demonstrations: train the output grids of demonstrations in the prefix too, from the second on.

        Raises:
            DataError: if there is no such prompt.
            ValueError: if the episode lacks what the prompt needs.
        """
        rendered = self.template.render(episode, prompt)
        weights = self._verdict_weights(rendered.branches, right_share)
        return self._tree(rendered, prompt, weights, learn_demonstrations)

    def selections(self, episode: Episode, orders: Sequence[Sequence[int]]) -> TokenTree:
        """Make one token tree of many selections among an episode's answers.

        Args:
            episode: its answers are the options.
            orders: for each branch, the indices of its options in the episode's answers, in the order shown.

        Returns:
            A tree whose branch ``i`` shows ``orders[i]``. The last position of each, its only target, predicts the
            number of the chosen option, one of the first ``len(orders[i])`` of `choice_ids`. The target is the right
            one's; where none is known to be right, it is the first one's and has no weight.

        Raises:
            ValueError: if an order does not have 2 to 9 options, or repeats one.
        """
        rendered = self.template.selections(episode, orders)
        weight = 1 / max(sum(branch.trained for branch in rendered.branches), 1)
        return self._tree(rendered, SELECT, [weight if b.trained else 0.0 for b in rendered.branches])

    def write(self, grid: Grid) -> NDArray[np.int32]:
        """Return the token ids of a grid as an answer, without the token ``end_id`` that ends it."""
        return self._parts.grid(grid)

    def read(self, tokens: NDArray[np.integer]) -> Grid:
        """Return the grid of a model's answer, given without its end token.

        Raises:
            DecodeError: if the tokens are no grid.
        """
        text = decoded(self.tokenizer, tokens if self.kept is None else self.kept[tokens])
        return self.grid_encoder.decode(text.removeprefix(" ") if self._begins_with_space else text)

    def opening(self, episode: Episode) -> NDArray[np.int32]:
        """Return the token ids of a prompt up to the output that is to be written."""
        segments = self.template.examples(episode, "write")
        if self._answers is not None:
            return self._opening_of_turns(self._answers, segments, episode.query)[0]
        return np.concatenate([self._parts.ids(segment) for segment in segments])

    def opening_positions(self, episode: Episode) -> NDArray[np.int32] | None:
        """Return the ``(n, 3)`` positions of an opening's tokens; ``None`` where they have no grid positions."""
        if self.rows is None:
            return None
        segments = self.template.examples(episode, "write")
        if self._answers is not None:
            tail = self.grid_encoder.encode(episode.query) + self._answers.frames.question
            n = len(self._opening_of_turns(self._answers, segments, episode.query)[0])
            return positions_of_turns(self._answers.turns, self.rows, self.template, segments, tail)[:n]
        return placed_parts([self._parts.placed(segment) for segment in segments])

    @property
    def rows(self) -> GridRows | None:
        """Rows and columns of the tokens of a written grid; ``None`` where they have no grid positions."""
        return self._parts.rows

    def grid_template(self, height: int, width: int) -> Template:
        """Return the ids of grids of one shape, where a cell is one token."""
        return self._parts.template(height, width, "")

    @property
    def colour_ids(self) -> NDArray[np.int32] | None:
        """The ``(10,)`` ids of the colours; ``None`` where a cell is not always one token of its own."""
        return self._parts.colour_ids

    @property
    def writes_code(self) -> bool:
        """Whether prompts can contain programs, which needs a text tokenizer with its whole vocabulary."""
        return isinstance(self.template, ChatTemplatePrompt) and self.kept is None

    def text(self, episode: Episode, prompt: str, i: int = 0) -> str:
        """Return the whole text of branch ``i``, as the text tokenizer would be given it."""
        return self.template.text(self.template.render(episode, prompt), i)

    def _prove(self) -> None:
        """Compare one example of every prompt with the text tokenizer's ids of the whole text."""
        for prompt, kind in PROMPTS.items():
            if kind in FROM_CODE and not self.writes_code:
                continue
            tree = self.tree(_EXAMPLE, prompt)
            for i, branch in enumerate(tree.branches):
                whole = self.tokenizer(self.text(_EXAMPLE, prompt, i), add_special_tokens=False).input_ids
                ids = tree.sequence(i)
                if (ids if self.kept is None else self.kept[ids]).tolist() != whole:
                    raise DataError(
                        f"{name_of(self.tokenizer)}: the tokenizer writes {prompt} with {self.grid_encoder} as a "
                        "whole in another way than in pieces"
                    )
                if branch.targets[-1] not in (self.end_id, self.yes_id, self.no_id, *self.choice_ids):
                    raise DataError(
                        f"{name_of(self.tokenizer)}: the tokenizer writes the last word of {prompt} in another way "
                        f"than alone; {REMEDY}"
                    )

    @property
    def _begins_with_space(self) -> bool:
        """Whether an answer's first token may begin with a space of the template, as behind Mistral's ``[/INST]``."""
        return self._answers is not None and self._answers.frames.answer.endswith(" ")

    def _opening_of_turns(
        self, answers: AnswerTokenizer, segments: Sequence[Segment], grid: Grid
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return an opening's ids as they are before a grid, and the ids of opening, grid and end together."""
        opening = self.template.text_of(segments)
        text = f"{opening}{self.grid_encoder.encode(grid)}{answers.frames.question}"
        ids, (stop,) = answers.turns.encode(text, [len(opening)])
        return ids[:stop], ids

    def _prove_answers(self, answers: AnswerTokenizer) -> None:
        """Check that no answer's first cell changes the prompt's last tokens, and that answers are read back."""
        segments = self.template.examples(_EXAMPLE, "write")
        first = self._opening_of_turns(answers, segments, _GRID)[0]
        for colour in range(N_COLOURS):
            grid = (_GRID + colour - _GRID[0, 0]) % N_COLOURS
            ids, whole = self._opening_of_turns(answers, segments, grid)
            written = self.write(grid)
            expected = [*first, *written, self.end_id]
            if len(ids) != len(first) or whole[: len(expected)].tolist() != expected:
                raise DataError(
                    f"{name_of(self.tokenizer)}: the tokenizer joins an answer with what stands around it; "
                    f"{REMEDY}, or another data.grid_encoder"
                )
            if not same_grid(self.read(written), grid):
                raise DataError(
                    f"{name_of(self.tokenizer)}: the tokenizer does not give back a grid of {self.grid_encoder}; "
                    "give another data.grid_encoder"
                )

    def _tree(
        self, rendered: RenderedPrompt, prompt: str, weights: Sequence[float], learn_demonstrations: bool = False
    ) -> TokenTree:
        if self._answers is not None:
            turns = self._answers.turns
            tree = tree_of_turns(turns, self.template, rendered, prompt, weights, learn_demonstrations)
            if self.rows is None:
                return tree
            return tree_of_turns_with_positions(tree, turns, self.rows, self.template, rendered)
        ids, targets = self._prefix(rendered.prefix, learn_demonstrations)
        before, *placed = self._positions(rendered)
        about = zip(rendered.branches, weights, placed, strict=True)
        branches = [self._branch(ids[-1:], *branch) for branch in about]
        return TokenTree(ids[:-1], targets[:-1], tuple(branches), prompt, before)

    def _positions(self, rendered: RenderedPrompt) -> Sequence[NDArray[np.int32] | None]:
        """Return the grid positions of the prefix and of every branch."""
        if self.rows is None:
            return [None] * (1 + len(rendered.branches))
        placed = self._parts.placed
        behind = [[b.written, *b.shown] if b.written is not None else b.shown for b in rendered.branches]
        return tree_positions([*map(placed, rendered.prefix)], [[*map(placed, segments)] for segments in behind])

    def _prefix(self, segments: Sequence[Segment], learn: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the prefix's ids and trained targets, each ``(P + 1,)`` with the last prompt token."""
        pieces = [self._parts.ids(segment) for segment in segments]
        ids = np.concatenate(pieces)
        targets = np.full(len(ids), IGNORE, np.int32)
        stop = 0
        for segment, piece in zip(segments, pieces, strict=True) if learn else ():
            start, stop = stop, stop + len(piece)
            if segment.trained:
                targets[start - 1 : stop - 1] = piece
        return ids, targets

    def _branch(
        self,
        first: NDArray[np.int32],
        text: RenderedBranch,
        verdict_weight: float,
        positions: NDArray[np.int32] | None,
    ) -> Branch:
        pieces = [first, *([] if text.written is None else [self._parts.ids(text.written)])]
        n_written = 0 if text.written is None else len(pieces[1])
        last = self.end_id if text.verdict is None else self._parts.text(text.verdict)[0]
        tokens = np.concatenate([*pieces, *map(self._parts.ids, text.shown), np.array([last], np.int32)])
        return labelled_branch(text, tokens, 0, n_written, verdict_weight, positions)

    @staticmethod
    def _verdict_weights(branches: Sequence[RenderedBranch], right_share: float) -> list[float]:
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
