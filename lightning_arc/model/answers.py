"""Answers: what the scores of a tree's branches say about a request, and what is written behind a batch's prompts."""

import math
import time
from typing import Any

import torch
from transformers import PreTrainedModel

from lightning_arc.data.batch import TreeBatch, TreeShape
from lightning_arc.model.decoding import Decoding, Opening, write
from lightning_arc.model.finite import finite_answers
from lightning_arc.model.scoring import BranchScores
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.positions import GridRows
from lightning_arc.ranking.records import Choice, ScoringRequest, ViewScores


def answer(request: ScoringRequest, n: int, shape: TreeShape, scores: BranchScores, seconds: float) -> ViewScores:
    """Return the answer to a request about ``n`` candidates.

    Args:
        request: what was asked.
        n: candidates of the test input, asked about or not.
        shape: of the request's tree: a branch a candidate, or a branch a selection.
        scores: of its branches.
        seconds: time that they took.

    Raises:
        FloatingPointError: if one of them is not a finite number.
    """
    said = {name: [math.nan] * n for name in ("log_odds", "log_likelihood", "mismatches")}
    choices: tuple[Choice, ...] = ()
    if request.selections:
        rows = zip(request.selections, scores.choices.tolist(), strict=True)
        choices = tuple(Choice(order, tuple(row[: len(order)])) for order, row in rows)
        finite = all(math.isfinite(log_prob) for choice in choices for log_prob in choice.log_probs)
    else:
        for name, values in said.items():
            for place, value in zip(shape.answers, getattr(scores, name).tolist(), strict=True):
                values[place] = value
        likelihoods = scores.log_likelihood[scores.written > 0]  # the others were not written
        finite = bool(torch.cat([scores.log_odds, likelihoods]).isfinite().all())
    if not finite:
        raise FloatingPointError(f"an answer about {request.key} is not a finite number")
    return ViewScores(
        request.key,
        request.view,
        **said,
        prefix_tokens=shape.prefix,
        branch_tokens=sum(shape.branches),
        seconds=seconds,
        member=request.member,
        candidates=request.candidates,
        selections=choices,
    )


def write_answers(
    model: PreTrainedModel, batch: TreeBatch, decoding: Decoding, grammar: Grammar | None, grid_rows: GridRows | None
) -> list[dict[str, Any]]:
    """Write answers behind all prompts of a batch.

    Args:
        model: a causal language model.
        batch: a tree with one branch for each prompt.
        decoding: how answers are written.
        grammar: what may be written.
        grid_rows: tells the grid positions of what is written.

    Returns:
        Of each prompt a dict with ``key``, ``view``, ``written`` (see `GeneratedAnswer`), ``n_demonstrations``,
        ``tokens`` and ``seconds``, which are the batch's by tokens.

    Raises:
        DataError: if the model gives what is not a finite number.
    """
    start, openings = time.perf_counter(), []
    for i, info in enumerate(batch.info):
        prompt, positions = batch.sequence(i)
        openings.append(Opening(prompt, info["end_id"], info["room"], info["seed"], positions))
    with finite_answers([(info["key"], info["view"]) for info in batch.info]):
        found = write(model, openings, decoding, grammar, grid_rows)
    seconds_a_token = (time.perf_counter() - start) / max(1, sum(tokens for _, tokens in found))
    answers = []
    for info, (written, tokens) in zip(batch.info, found, strict=True):
        about = {name: info[name] for name in ("key", "view", "n_demonstrations")}
        answers.append(about | {"written": written, "tokens": tokens, "seconds": seconds_a_token * tokens})
    return answers
