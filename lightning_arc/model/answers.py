"""Answers: the scores of a tree's branches as the answer to a request, and the texts generated behind prompts."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lightning_arc.data.batch import TreeBatch, TreeShape
from lightning_arc.data.prediction import GenerationRequest
from lightning_arc.model.decoding import Decoding, GeneratedAnswer, Opening, generate
from lightning_arc.model.finite import finite_answers
from lightning_arc.model.scoring import BranchScores
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.positions import GridRows
from lightning_arc.ranking.records import SCORES, Choice, ScoringRequest, ViewScores


def view_scores(request: ScoringRequest, n: int, shape: TreeShape, scores: BranchScores, seconds: float) -> ViewScores:
    """Return the answer to a request about ``n`` candidates.

    Args:
        request: the request.
        n: number of the test input's candidates, in the request or not.
        shape: shape of the request's tree, with one branch per candidate or per selection.
        scores: scores of its branches.
        seconds: time that scoring took.

    Raises:
        FloatingPointError: if a score is not a finite number.
    """
    scored = {name: [math.nan] * n for name in SCORES}
    choices: tuple[Choice, ...] = ()
    if request.selections:
        rows = zip(request.selections, scores.choices.tolist(), strict=True)
        choices = tuple(Choice(order, tuple(row[: len(order)])) for order, row in rows)
        finite = all(math.isfinite(log_prob) for choice in choices for log_prob in choice.log_probs)
    else:
        for name, values in scored.items():
            for place, value in zip(shape.answers, getattr(scores, name).tolist(), strict=True):
                values[place] = value
        likelihoods = scores.log_likelihood[scores.written > 0]  # the others were not written
        finite = bool(torch.cat([scores.log_odds, likelihoods]).isfinite().all())
    if not finite:
        raise FloatingPointError(f"an answer about {request.key} is not a finite number")
    return ViewScores(
        request.key,
        request.view,
        log_odds=scored["log_odds"],
        log_likelihood=scored["log_likelihood"],
        mismatches=scored["mismatches"],
        prefix_tokens=shape.prefix,
        branch_tokens=sum(shape.branches),
        seconds=seconds,
        member=request.member,
        candidates=request.candidates,
        selections=choices,
    )


@dataclass(frozen=True)
class GeneratedView:
    """The answers that were written for a request.

    Args:
        request: the request.
        answers: the answers.
        tokens: tokens that went through the model.
        seconds: the batch's seconds, in proportion to tokens.
        diverged: whether the test-time training for it diverged, so that the untrained model wrote.
    """

    request: GenerationRequest
    answers: Sequence[GeneratedAnswer]
    tokens: int
    seconds: float
    diverged: bool = False


def generate_answers(
    model: PreTrainedModel,
    batch: TreeBatch,
    requests: Sequence[GenerationRequest],
    decoding: Decoding,
    grammar: Grammar | None,
    grid_rows: GridRows | None,
) -> list[GeneratedView]:
    """Write answers behind all prompts of a batch.

    Args:
        model: a causal language model.
        batch: a tree with one branch for each prompt.
        requests: one for each prompt.
        decoding: how answers are written.
        grammar: restricts the tokens that may be written.
        grid_rows: gives the grid positions of written tokens.

    Raises:
        DataError: if a logit of the model is not a finite number.
    """
    start, openings = time.perf_counter(), []
    for i, request in enumerate(requests):
        prompt, positions = batch.sequence(i)
        openings.append(Opening(prompt, request.end_id, request.max_new_tokens, request.seed, positions))
    with finite_answers([(request.key, request.view) for request in requests]):
        found = generate(model, openings, decoding, grammar, grid_rows)
    seconds_a_token = (time.perf_counter() - start) / max(1, sum(tokens for _, tokens in found))
    return [
        GeneratedView(request, answers, tokens, seconds_a_token * tokens)
        for request, (answers, tokens) in zip(requests, found, strict=True)
    ]
