"""What is measured while a model trains."""

import pytest
import torch

from lightning_arc.batch import TreeShape
from lightning_arc.model.scoring import BranchScores
from lightning_arc.model.validation_metrics import ValidationMetrics
from lightning_arc.prompt.tree import Kind

NAN = float("nan")
SHAPE = TreeShape(9, (3, 3, 3), (0, 1, 2), (0, 1, 0), Kind.OUTPUT_FROM_EXAMPLES)


def scores(log_odds, log_likelihood, written=2):
    n = len(log_odds)
    numbers = torch.tensor(log_likelihood), torch.tensor(log_odds), torch.full((n, 0), NAN)
    return BranchScores(*numbers, torch.full((n,), written), torch.tensor([2, 1, 0]))


def measured(*trees):
    metrics = ValidationMetrics()
    for log_odds, likelihood, info in trees:
        metrics.update(SHAPE, scores(log_odds, likelihood), info)
    return {name: float(value) for name, value in metrics.compute(lambda weights: weights).items()}


def test_rankings_writing_and_verdicts_are_counted():
    found = measured(([-1.0, 2.0, 3.0], [-4.0, -2.0, -8.0], {"episode": 0, "votes": [5, 1, 0], "ranked": True}))
    assert found["val/ranking/verifier_top1"] == found["val/ranking/verifier_top2"] == 1  # the last has no vote
    assert found["val/ranking/likelihood_top1"] == 1
    assert (found["val/ranking/vote_top1"], found["val/ranking/vote_top2"]) == (0, 1)
    assert found["val/output-from-examples/loss"] == 1  # the right one: two tokens of -2 together
    assert found["val/output-from-examples/token_accuracy"] == 0.5
    assert found["val/verify-output-from-examples/accuracy"] == pytest.approx(2 / 3)


def test_a_prompt_without_likelihoods_has_no_ranking_by_them_and_one_that_is_asked_again_none():
    info = {"episode": 0, "votes": [5, 1, 1], "ranked": True}
    found = measured(([1.0, 2.0, 0.0], [NAN] * 3, info), ([3.0, 0.0, 3.0], [-1.0] * 3, info | {"ranked": False}))
    assert "val/ranking/likelihood_top1" not in found
    assert found["val/ranking/verifier_top1"] == 1


def test_nothing_is_told_of_what_was_not_seen():
    assert measured() == {}
