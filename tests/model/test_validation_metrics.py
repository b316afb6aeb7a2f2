"""What is measured while a model trains."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from lightning_arc.arc import Candidate, PairKey, as_grid
from lightning_arc.data.batch import TreeShape
from lightning_arc.model.scoring import BranchScores
from lightning_arc.model.validation_metrics import ValidationMetrics
from lightning_arc.prompt.tree import PromptKind
from lightning_arc.ranking.metrics import score_methods
from lightning_arc.ranking.rankers import RANKERS, ComparativeRanker, LogLinearRanker, Verifier
from lightning_arc.ranking.records import ViewScores
from lightning_arc.ranking.scores import CandidateScores

NAN = float("nan")
SHAPE = TreeShape(9, (3, 3, 3), (0, 1, 2), (0, 1, 0), PromptKind.OUTPUT_FROM_EXAMPLES)


def scores(log_odds, log_likelihood, written=2):
    n = len(log_odds)
    numbers = torch.tensor(log_likelihood), torch.tensor(log_odds), torch.full((n, 0), NAN)
    return BranchScores(*numbers, torch.full((n,), written), torch.tensor([2, 1, 0]))


def about(votes, right=1, episode=0):
    """What the data hold about a tree whose answers have votes; those without are not ranked."""
    n = sum(v > 0 for v in votes)
    candidates = tuple(Candidate(as_grid([[i]]), votes[i]) for i in range(n))
    return {
        "episode": episode,
        "evidence": CandidateScores(PairKey(f"t{episode}", "test", 0), candidates, [i == right for i in range(n)]),
    }


def measured(*trees, ranker=None):
    metrics = ValidationMetrics(ranker)
    for log_odds, likelihood, info in trees:
        metrics.update(SHAPE, scores(log_odds, likelihood), info)
    return {name: float(value) for name, value in metrics.compute(lambda weights: weights).items()}


def test_rankings_writing_and_verdicts_are_counted():
    found = measured(([-1.0, 2.0, 3.0], [-4.0, -2.0, -8.0], about([5, 1, 0])))
    assert found["val/ranking/verifier_top1"] == found["val/ranking/verifier_top2"] == 1  # the last has no vote
    assert found["val/ranking/likelihood_top1"] == 1
    assert (found["val/ranking/vote_top1"], found["val/ranking/vote_top2"]) == (0, 1)
    assert (found["val/ranking/verifier_mrr"], found["val/ranking/vote_mrr"]) == (1, 0.5)
    assert found["val/output-from-examples/loss"] == 1  # the right one: two tokens of -2 together
    assert found["val/output-from-examples/token_accuracy"] == 0.5
    assert found["val/verify-output-from-examples/accuracy"] == pytest.approx(2 / 3)


def test_losses_are_means_over_tokens_and_confident_verdicts_are_told_apart():
    one, other = about([5, 1, 0]), about([5, 1, 0], episode=1)
    metrics = ValidationMetrics()
    metrics.update(SHAPE, scores([17.8, 19.0, 18.0], [-1.0, -6.0, -1.0], written=2), one)
    metrics.update(SHAPE, scores([-1.0, 20.0, -2.0], [-1.0, -1.0, -1.0], written=8), other)
    found = metrics.compute(lambda weights: weights)
    assert float(found["val/output-from-examples/loss"]) == pytest.approx(7 / 10)
    assert float(found["val/verify-output-from-examples/auroc"]) == 1


def test_rankings_are_those_that_predict_makes_of_the_same_answers():
    trees = [
        ([2.0, 2.0, 2.0], [-1.0, -2.0, -3.0], about([1, 2, 1])),  # a tie, which votes settle: the right one is first
        ([0.0, 1.0, 3.0], [-2.0, -3.0, -1.0], about([7, 2, 2], episode=1)),
        ([0.0, -1.0, -2.0], [-2.0, -1.0, -1.0], about([1, 1, 4], episode=2)),  # likelihoods tie, votes mislead
    ]
    combined = LogLinearRanker({"verifier": 1.0, "votes": 3.0})
    found = measured(*trees, ranker=combined)
    evidence = [
        info["evidence"].with_records([ViewScores(info["evidence"].key, 0, log_odds, likelihood)])
        for log_odds, likelihood, info in trees
    ]
    metrics = score_methods(evidence, RANKERS | {"combined": combined}, "combined")
    for name, method in metrics["methods"].items():
        for measure in ("top1", "top2", "mrr"):
            assert found[f"val/ranking/{name}_{measure}"] == pytest.approx(method[measure]), (name, measure)
    assert found["val/ranking/verifier_top1"] == pytest.approx(1 / 3)
    assert found["val/ranking/combined_mrr"] != found["val/ranking/verifier_mrr"]


class JudgeAndChooser(Verifier):
    """Asks for choices too, which no validation episode holds."""

    name = "both"
    kinds = ("verify", "select")


@pytest.mark.parametrize("ranker", (ComparativeRanker(), JudgeAndChooser()))
def test_a_ranker_that_needs_more_than_judgements_is_not_measured(ranker):
    found = measured(([1.0, 2.0, 0.0], [-1.0] * 3, about([5, 1, 1])), ranker=ranker)
    assert {name.split("/")[-1].split("_")[0] for name in found if "ranking" in name} == set(RANKERS)


def test_a_right_output_that_no_solver_proposed_is_not_ranked():
    found = measured(
        ([1.0, 0.0, 9.0], [-1.0] * 3, about([2, 1, 0], right=2)),
        ([0.0, 3.0, 9.0], [-1.0] * 3, about([2, 1, 0], episode=1)),
    )
    assert found["val/ranking/verifier_top1"] == 1  # the first tree has none to find


def test_a_prompt_without_likelihoods_has_no_ranking_by_them_and_one_that_comes_again_none():
    again = {"episode": 0, "evidence": None}
    found = measured(([1.0, 2.0, 0.0], [NAN] * 3, about([5, 1, 1])), ([3.0, 0.0, 3.0], [-1.0] * 3, again))
    assert "val/ranking/likelihood_top1" not in found
    assert found["val/ranking/verifier_top1"] == 1


def test_without_batches_there_are_no_metrics():
    assert measured() == {}


TREES = [
    ([2.0, 1.0, 0.0], [-1.0, -2.0, -3.0], about([1, 2, 1])),
    ([0.0, 1.0, 3.0], [-2.0, -3.0, -1.0], about([7, 2, 2], episode=1)),
    ([0.0, -1.0, -2.0], [-2.0, -1.0, -1.0], about([1, 1, 4], episode=2)),
]


SHARES = [([0, 1], [2]), ([0, 1, 2], [])]
"""Which trees each of two processes sees."""


def _measure_shares(rank, address, out):
    dist.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)

    def add_up(tensor):
        dist.all_reduce(tensor)
        return tensor

    found = []
    for shares in SHARES:
        metrics = ValidationMetrics()
        for i in shares[rank]:
            metrics.update(SHAPE, scores(*TREES[i][:2]), TREES[i][2])
        found.append({name: float(value) for name, value in metrics.compute(add_up).items()})
    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_with_different_numbers_of_trees_measure_what_one_does(tmp_path):
    run = partial(_measure_shares, address=str(tmp_path / "meet"), out=str(tmp_path))
    multiprocessing.spawn(run, nprocs=2)
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt"):
            assert found == pytest.approx(measured(*TREES))
