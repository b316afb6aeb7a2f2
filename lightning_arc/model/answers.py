"""Answers: from the scores of a tree's branches to what they say about a question.

Knows shapes of trees, scores and questions. Knows nothing of tokens, models or Lightning.
"""

import math

import torch

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

    Raises:
        FloatingPointError: if one of them is not a finite number.
    """
    said = {name: [math.nan] * n for name in ("log_odds", "log_likelihood")}
    choices: tuple[Choice, ...] = ()
    if question.selections:
        rows = zip(question.selections, scores.choices.tolist(), strict=True)
        choices = tuple(Choice(order, tuple(row[: len(order)])) for order, row in rows)
        finite = all(math.isfinite(log_prob) for choice in choices for log_prob in choice.log_probs)
    else:
        for name, values in said.items():
            for place, value in zip(shape.answers, getattr(scores, name).tolist(), strict=True):
                values[place] = value
        likelihoods = scores.log_likelihood[scores.written > 0]  # the others were not written
        finite = bool(torch.cat([scores.log_odds, likelihoods]).isfinite().all())
    if not finite:
        raise FloatingPointError(f"an answer about {question.key} is not a finite number")
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
