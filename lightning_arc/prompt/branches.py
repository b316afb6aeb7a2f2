"""Branches of token trees: which tokens are targets; and token trees of prompts that are tokenized by turns."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_arc.prompt.templates import PromptTemplate, RenderedBranch, RenderedPrompt, Segment
from lightning_arc.prompt.tree import IGNORE, Branch, PromptKind, TokenTree
from lightning_arc.prompt.turns import TurnTokenizer


def labelled_branch(
    text: RenderedBranch,
    ids: NDArray[np.int32],
    start: int,
    n_written: int,
    verdict_weight: float,
    positions: NDArray[np.int32] | None = None,
) -> Branch:
    """Make a branch of its token ids.

    Args:
        text: the rendered branch.
        ids: ``(length + 1,)`` ids, the last token of the prompt before them and the last target behind them.
        start: the position that predicts the first written token.
        n_written: written tokens, without the one that ends them.
        verdict_weight: loss weight of a verdict.
        positions: ``(length, 3)`` grid positions, if any.
    """
    n, stop = len(ids) - 1, start + n_written + 1
    targets = np.full(n, IGNORE, np.int32)
    kinds = np.full(n, text.kind, np.int8)
    weights = np.zeros(n, np.float32)
    if n_written:
        targets[start:stop] = ids[start + 1 : stop + 1]
        weights[start:stop] = text.trained
    if text.verdict is not None:
        targets[-1] = ids[-1]
        judged = PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES
        kinds[-1] = text.kind if text.kind is PromptKind.SELECT_OUTPUT_FROM_EXAMPLES else judged
        weights[-1] = verdict_weight
    return Branch(ids[:-1], targets, kinds, weights, text.answer, text.correct, positions)


def tree_of_turns(
    turns: TurnTokenizer,
    template: PromptTemplate,
    rendered: RenderedPrompt,
    prompt: str,
    weights: Sequence[float],
    learn_demonstrations: bool,
) -> TokenTree:
    """Make a token tree of a prompt whose turns are tokenized whole.

    Args:
        turns: the tokenizer.
        template: how the prompt was rendered.
        rendered: the prompt.
        prompt: its name.
        weights: loss weight of each branch's verdict.
        learn_demonstrations: train the output grids of demonstrations in the prefix too.

    Returns:
        A tree whose prefix is what all branches have in common, up to what the first of them writes.
    """
    prefix = template.text_of(rendered.prefix)
    head = turns.head(prefix)  # a turn that branches go on with is tokenized together with each of them
    wholes, spans = [], []
    for branch in rendered.branches:
        written = "" if branch.written is None else template.text_of([branch.written])
        tail = template.text_of(branch.shown) + (template.end if branch.verdict is None else branch.verdict)
        start = len(prefix) - head
        ids, span = turns.encode(prefix[head:] + written + tail, [start, start + len(written)])
        wholes.append(ids)
        spans.append(span)
    n_shared = min(start for start, _ in spans)
    for whole in wholes[1:]:
        n_shared = min(n_shared, _in_common(wholes[0], whole))
    before = np.concatenate([turns.encode(prefix[:head])[0], wholes[0][:n_shared]])
    targets = np.full(len(before), IGNORE, np.int32)
    if learn_demonstrations:
        whole = np.concatenate([before, wholes[0][n_shared:]])
        for start, stop in _trained(turns, template, rendered.prefix, template.text(rendered, 0)):
            targets[start - 1 : stop - 1] = whole[start:stop]
    branches = [
        labelled_branch(text, np.concatenate([before[-1:], whole[n_shared:]]), start - n_shared, stop - start, weight)
        for text, whole, (start, stop), weight in zip(rendered.branches, wholes, spans, weights, strict=True)
    ]
    return TokenTree(before[:-1], targets[:-1], tuple(branches), prompt)


def _trained(
    turns: TurnTokenizer, template: PromptTemplate, prefix: Sequence[Segment], whole: str
) -> list[tuple[int, int]]:
    """Return where the tokens of trained parts of a prefix begin and end in a whole text."""
    stops = np.cumsum([len(template.text_of([segment])) for segment in prefix]).tolist()
    spans = [
        (stop - len(template.text_of([segment])), stop)
        for segment, stop in zip(prefix, stops, strict=True)
        if segment.trained
    ]
    found = turns.encode(whole, [place for span in spans for place in span])[1]
    return list(zip(found[::2], found[1::2], strict=True))


def _in_common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """Return how many tokens two sequences begin with alike."""
    n = min(len(one), len(other))
    different = np.flatnonzero(one[:n] != other[:n])
    return int(different[0]) if len(different) else n
