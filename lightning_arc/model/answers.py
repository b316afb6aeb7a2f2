"""Answers: from the scores of a tree's branches to what they say about a question.

Knows shapes of trees, scores and questions. Knows nothing of tokens, models or Lightning.
"""

import math

from lightning_arc.batch import TreeShape
from lightning_arc.model.scoring import BranchScores
from lightning_arc.ranking.records import Choice, Question, ViewEvidence


def answer(question: Question, n: int, shape: TreeShape, scores: BranchScores, seconds: float) -> ViewEvidence:
    """Return the answer to a question about ``n`` candidates.

    Args:
        question: what was asked.
        n: candidates of the test input, asked about or not.
        shape: of the question's tree: a branch a candidate, or a branch a selection.
        scores: of its branches.
        seconds: time that they took.
    """
    said = {name: [math.nan] * n for name in ("log_odds", "log_likelihood")}
    choices: tuple[Choice, ...] = ()
    if question.selections:
        rows = zip(question.selections, scores.choices.tolist(), strict=True)
        choices = tuple(Choice(order, tuple(row[: len(order)])) for order, row in rows)
    else:
        for name, values in said.items():
            for place, value in zip(shape.answers, getattr(scores, name).tolist(), strict=True):
                values[place] = value
    return ViewEvidence(
        question.key,
        question.view,
        **said,
        prefix_tokens=shape.prefix,
        branch_tokens=sum(shape.branches),
        seconds=seconds,
        member=question.member,
        candidates=question.candidates,
        selections=choices,
    )
