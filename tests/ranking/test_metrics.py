"""Metrics: counts over what can be solved, intervals over tasks, and probabilities that are to come true."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.ranking.calibration import Temperature
from lightning_arc.ranking.metrics import (
    accuracy_by_views,
    bootstrap_interval,
    competition_score,
    expected_score,
    score_methods,
    score_rankings,
    verdict_metrics,
    within_aurocs,
)
from lightning_arc.ranking.rankers import (
    RANKERS,
    ComparativeRanker,
    Ensemble,
    Likelihood,
    LogLinearRanker,
    MajorityVote,
    Ranker,
    Ranking,
    Verifier,
)
from lightning_arc.ranking.records import Choice, ViewScores
from lightning_arc.ranking.scores import CandidateScores


def scored(evidence: list[CandidateScores]) -> dict[str, Any]:
    return score_methods(evidence, RANKERS, "verifier")


@given(data=st.data())
def test_accuracies_are_counts_over_solvable_test_inputs(data: st.DataObject, evidences: Any) -> None:
    evidence = data.draw(st.lists(evidences(), min_size=1, max_size=6))
    metrics = scored(evidence)
    solvable = [e for e in evidence if any(e.correct)]
    assert (metrics["n_tests"], metrics["n_solvable"]) == (len(evidence), len(solvable))
    for name, got in metrics["methods"].items():
        ranker = RANKERS[name]
        places = [ranker.rank(e).order.tolist().index(e.correct.index(True)) for e in solvable]
        for k in (1, 2):
            expected = sum(place < k for place in places) / len(solvable) if solvable else None
            assert got[f"top{k}"] == (expected if expected is None else pytest.approx(expected))
            low, high = got[f"top{k}_ci"] or (None, None)
            assert low is None if expected is None else 0 <= low <= expected + 1e-9 and expected - 1e-9 <= high <= 1
            if solvable:
                first = sum(e.correct.index(True) < k for e in solvable) / len(solvable)
                assert got[f"top{k}_minus_file"] == pytest.approx(expected - first)
        if solvable:
            assert got["mrr"] == pytest.approx(np.mean([1 / (1 + place) for place in places]))
        assert got["top2"] is None or got["top2"] >= got["top1"]
        if name != "vote":
            gain = got["top2_minus_vote"]
            assert (
                gain is None
                if not solvable
                else gain == pytest.approx(got["top2"] - metrics["methods"]["vote"]["top2"])
            )


@given(data=st.data())
def test_voting_costs_nothing_and_a_model_what_it_computed(data: st.DataObject, evidences: Any) -> None:
    evidence = data.draw(st.lists(evidences(), min_size=1, max_size=4))
    methods = scored(evidence)["methods"]
    cost = ("seconds", "prefix_tokens", "branch_tokens")
    assert [methods["vote"][name] for name in cost] == [0, 0, 0]
    for name in methods.keys() - {"vote"}:
        assert [methods[name][c] for c in cost] == [sum(e.cost()[i] for e in evidence) for i in range(3)]


@given(data=st.data())
def test_unknown_outputs_give_no_accuracy_but_what_calibrated_probabilities_let_expect(
    data: st.DataObject, evidences: Any
) -> None:
    fitted = LogLinearRanker(calibration=Temperature(0.5))
    evidence = [data.draw(evidences(known=False))]
    metrics = score_methods(evidence, RANKERS | {"combined": fitted}, "combined")
    assert metrics["n_solvable"] is None and metrics["methods"]["combined"]["judged"]["n_solvable"] is None
    for name, method in metrics["methods"].items():
        names = (
            "top1",
            "top1_ci",
            "top2",
            "top2_ci",
            "top2_minus_file",
            "mrr",
            "auroc",
            "auroc_within",
            "ece",
            "score",
        )
        assert {method[name] for name in names} == {None}
        assert (method["expected_score"] is None) == (name != "combined")
    assert 0 <= metrics["methods"]["combined"]["expected_score"] <= 1


@pytest.mark.parametrize("ranker", (MajorityVote, Verifier, Likelihood, ComparativeRanker))
def test_only_calibrated_probabilities_give_an_expected_score(ranker: type[Ranker], scores_of: Any) -> None:
    evidence = [scores_of([[0, 1]], [[-1, -2]], correct=[True, False])]
    for calibration, shown in ((None, False), (Temperature(), True)):
        alone = ranker(calibration=calibration)
        for one in (alone, Ensemble(alone, 1)):
            entry = score_methods(evidence, {"m": one}, "m")["methods"]["m"]
            assert (entry["expected_score"] is not None) == shown


def test_accuracies_over_judged_test_inputs_leave_out_what_no_model_answered(scores_of: Any) -> None:
    right, wrong = [False, True], [True, False]
    evidence = [
        scores_of([[0, 1]], [[-1, -2]], [2, 1], right, "a"),
        scores_of([[0, 1]], [[math.nan] * 2], [2, 1], wrong, "b"),
        scores_of([[math.nan] * 2], votes=[2, 1], correct=wrong, task_id="c"),  # too long
        scores_of([], votes=[2, 1], correct=wrong, task_id="d"),  # not reached
        scores_of([[0, 1]], [[-1, -2]], [2, 1], [False, False], "e"),
        scores_of([], votes=[], task_id="f"),
    ]
    methods = scored(evidence)["methods"]
    counts = ("n_tests", "n_with_candidates", "n_solvable", "top1", "top2", "mrr", "top1_minus_vote")
    assert [methods["verifier"]["judged"][name] for name in counts] == [3, 5, 2, 0.5, 1, 0.75, 0]
    assert [methods["likelihood"]["judged"][name] for name in counts] == [2, 5, 1, 0, 1, 0.5, 0]
    assert methods["verifier"]["judged"]["top1_ci"] == [0, 1] and methods["verifier"]["top1"] == 0.75
    assert "judged" not in methods["vote"]


def test_methods_without_scores_have_no_figures_and_are_named(scores_of: Any) -> None:
    bare = [scores_of([], votes=[1, 2], correct=[True, False])]
    metrics = score_methods(bare, RANKERS, "vote")
    assert list(metrics["methods"]) == ["vote"] and metrics["not_asked"] == ["verifier", "likelihood", "mismatches"]
    chosen = score_methods(bare, RANKERS, "verifier")  # has no scores
    assert list(chosen["methods"]) == ["vote", "verifier"] and chosen["not_asked"] == ["likelihood", "mismatches"]
    assert chosen["methods"]["verifier"]["judged"]["top1"] is None
    verdicts = score_methods([scores_of([[0, 1]], correct=[True, False])], RANKERS, "vote")
    assert list(verdicts["methods"]) == ["vote", "verifier"] and verdicts["not_asked"] == ["likelihood", "mismatches"]


def of(p: list[float], correct: list[bool] | None, key: PairKey) -> tuple[CandidateScores, Ranking]:
    """A test input whose candidates have given probabilities of being right, best first."""
    evidence = CandidateScores(key, tuple(Candidate(np.full((1, 2), i, np.int8)) for i in range(len(p))), correct)
    array = np.array(p, float)
    return evidence, Ranking(np.argsort(-array, kind="stable"), array, array, array)


def test_the_test_inputs_of_a_task_share_its_point() -> None:
    given = [
        of([0.6, 0.3, 0.1], [False, True, False], PairKey("a", "test", 0)),
        of([0.5, 0.2, 0.1], [False, False, True], PairKey("a", "test", 1)),
        of([0.9, 0.8], [True, False], PairKey("b", "test", 0)),
        of([], [], PairKey("c", "test", 0)),
        of([0.25], None, PairKey("d", "test", 0)),
    ]
    evidence, rankings = map(list, zip(*given, strict=True))
    with_pair = [*zip(evidence, rankings, strict=True), of([0.9], [True], PairKey("a", "train", 0))]
    entry = score_rankings(*map(list, zip(*with_pair, strict=True)))
    assert entry["score"] == 1.5 and score_rankings([with_pair[-1][0]], [with_pair[-1][1]])["score"] is None
    assert competition_score(evidence, rankings) == 1.5
    assert expected_score(evidence, rankings) == pytest.approx((0.9 + 0.7) / 2 + 1 + 0.25)


def test_probabilities_that_come_true_have_no_calibration_error_and_no_skill_if_they_are_all_one() -> None:
    key = PairKey("a", "test", 0)
    evidence, ranking = of([0.25] * 4, [False, True, False, False], key)
    assert verdict_metrics([evidence], [ranking]) == {"auroc": pytest.approx(0.5), "ece": pytest.approx(0)}
    evidence, ranking = of([0.9, 0.8, 0.1], [True, True, False], key)
    found = verdict_metrics([evidence], [ranking])
    assert found == {"auroc": pytest.approx(1), "ece": pytest.approx((0.1 + 0.2 + 0.1) / 3)}
    assert verdict_metrics(*map(list, zip(of([0.5], [False], key), strict=True)))["auroc"] is None


def test_accuracy_by_views_ranks_by_the_first_views_alone(scores_of: Any) -> None:
    evidence = [
        scores_of([[0, 1], [3, 0], [0, 0], [0, 9]], correct=[True, False]),
        scores_of([], votes=[1], correct=[True], task_id="u"),
    ]
    curve = accuracy_by_views(evidence, Verifier())
    assert [point["views"] for point in curve] == [1, 2, 4]
    assert [point["top1"] for point in curve] == [0.5, 1, 0.5]
    assert [point["tokens"] for point in curve] == [120, 240, 480]
    assert [point["seconds"] for point in curve] == [0.5, 1, 2]
    assert accuracy_by_views(evidence, MajorityVote()) == accuracy_by_views([], Verifier()) == []


def test_a_ranker_that_makes_other_requests_has_its_own_views_costs_and_curve(scores_of: Any) -> None:
    e = scores_of([[0, 1]], correct=[False, True])
    nothing, choices = [math.nan] * 2, (Choice((0, 1), (-3.0, -0.05)),)
    for view in range(3):
        e.take(ViewScores(e.key, view, nothing, nothing, 7, 3, 0.25, selections=choices))
    methods = score_methods([e], RANKERS | {"selection": ComparativeRanker()}, "selection")["methods"]
    assert [(p["views"], p["tokens"]) for p in methods["selection"]["curve"]] == [(1, 10), (2, 20), (3, 30)]
    assert [(p["views"], p["tokens"]) for p in methods["verifier"]["curve"]] == [(1, 120)]
    assert [methods[name]["views"] for name in ("vote", "verifier", "selection")] == [0, 1, 3]
    assert methods["selection"]["seconds"] == 0.75 and methods["verifier"]["seconds"] == 0.5
    assert "curve" not in methods["vote"]


def test_auroc_within_compares_the_right_output_with_wrong_ones_of_the_same_test_input(scores_of: Any) -> None:
    evidence = [
        scores_of([[1, 0, 1, math.nan]], correct=[True, False, False, False], task_id="a"),  # above two, beside one
        scores_of([[5, 9]], correct=[True, False], task_id="b"),
        scores_of([[5]], votes=[1], correct=[True], task_id="c"),  # nothing to compare with
        scores_of([[5, 1]], correct=[False, False], task_id="d"),
    ]
    rankings = [Verifier().rank(e) for e in evidence]
    assert within_aurocs(evidence, rankings).tolist() == [pytest.approx(2.5 / 3), 0.0]
    found = score_methods(evidence, RANKERS, "vote")["methods"]["verifier"]
    assert found["auroc_within"] == pytest.approx(1.25 / 3) and found["auroc_within_ci"] == [0, pytest.approx(2.5 / 3)]


def test_views_that_were_requested_but_not_answered_are_not_counted_as_used(scores_of: Any) -> None:
    evidence = [
        scores_of([[1, math.nan], [math.nan] * 2, [0, 1]]),
        scores_of([[0, 1]], task_id="u"),
        scores_of([], votes=[]),
    ]
    assert score_methods(evidence, RANKERS, "verifier")["methods"]["verifier"]["views"] == 1.5


def test_the_order_of_the_file_is_a_method_beside_the_others(scores_of: Any) -> None:
    evidence = [
        scores_of([], votes=[1, 2, 3], correct=[right == i for i in range(3)], task_id=str(right)) for right in (0, 2)
    ]
    metrics = score_methods(evidence, RANKERS, "vote")
    file = metrics["file_order"]
    assert (file["top1"], file["top2"], file["mrr"], file["score"]) == (0.5, 0.5, pytest.approx(2 / 3), 1)
    assert file["auroc"] is None and file["ece"] is None and file["expected_score"] is None
    assert file["auroc_within"] == 0.5  # first and last of three
    assert file["top1_minus_vote"] == 0 and list(metrics["methods"]) == ["vote"]


def test_any_rankers_are_scored_beside_each_other(scores_of: Any) -> None:
    evidence = [scores_of([[0, 1]], votes=[1, 2], correct=[False, True])]
    metrics = score_methods(evidence, {"combined": LogLinearRanker({"votes": 1.0})}, "combined")
    assert metrics["methods"]["combined"]["top1"] == 1 and "top1_minus_vote" not in metrics["methods"]["combined"]


def test_an_interval_is_that_of_resampled_tasks() -> None:
    rng = np.random.default_rng(1)
    groups = [f"task {i}" for i in rng.integers(12, size=30)]
    values = (rng.random(30) < 0.6).astype(float)
    tasks = sorted(set(groups))
    means = []
    for _ in range(4000):
        drawn = rng.choice(tasks, len(tasks))
        means.append(np.concatenate([values[[g == task for g in groups]] for task in drawn]).mean())
    assert bootstrap_interval(values, groups) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_an_interval_is_the_same_every_time_and_narrower_at_a_lower_level() -> None:
    values, groups = np.tile([0.0, 1.0, 1.0], 20), [str(i) for i in range(60)]
    low, high = bootstrap_interval(values, groups)
    assert (low, high) == bootstrap_interval(values, groups)
    assert low < values.mean() < high
    inner = bootstrap_interval(values, groups, level=0.5)
    assert low < inner[0] < inner[1] < high


def test_an_interval_is_wider_where_test_inputs_belong_to_one_task() -> None:
    alone = bootstrap_interval(np.tile([0.0, 1.0], 50), [str(i) for i in range(100)])
    together = bootstrap_interval(np.repeat([0.0, 1.0], 50), [str(i // 25) for i in range(100)])
    assert 0.38 < alone[0] < 0.5 < alone[1] < 0.62
    assert together[1] - together[0] > alone[1] - alone[0]


def test_an_interval_of_what_never_varies_is_a_point() -> None:
    assert bootstrap_interval(np.ones(7), list("aabbcdd")) == (1.0, 1.0)
    assert bootstrap_interval(np.zeros(1), ["a"]) == (0.0, 0.0)
