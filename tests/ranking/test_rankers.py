"""Rankers: what they order by, what settles ties, what they request, and their probabilities of being right."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from lightning_arc.arc import Candidate
from lightning_arc.errors import DataError
from lightning_arc.ranking.calibration import Isotonic, Temperature
from lightning_arc.ranking.means import DECIMALS, paired_means
from lightning_arc.ranking.rankers import (
    Ensemble,
    Likelihood,
    LogLinearRanker,
    MajorityVote,
    Mismatches,
    Ranker,
    Ranking,
    Verifier,
)
from lightning_arc.ranking.records import ScoringRequest, ViewScores
from lightning_arc.ranking.scores import CandidateScores

RANKERS = {
    "votes": MajorityVote(),
    "verifier": Verifier(),
    "likelihood": Likelihood(),
    "product": Likelihood("sum", Temperature(0.5)),
    "combined": LogLinearRanker(),
    "without votes": LogLinearRanker({"verifier": 1.0, "solver": 1.0}, none=-1.0),
    "ensemble": Ensemble(Verifier(Isotonic([-1.0, 2.0], [0.25, 0.75])), 2),
}
each_ranker = pytest.mark.parametrize("ranker", RANKERS.values(), ids=RANKERS)
each_judge = pytest.mark.parametrize("ranker", list(RANKERS.values())[1:], ids=list(RANKERS)[1:])


def keys(evidence: CandidateScores, ranking: Ranking) -> list[tuple[float, ...]]:
    """What each candidate is ordered by, smallest first, without its place in the input."""
    columns = (ranking.score, evidence.votes.astype(float))
    rounded = [np.where(np.isnan(key), np.inf, -np.round(key, DECIMALS)) for key in columns]
    return list(zip(*(column.tolist() for column in rounded), strict=True))


def shuffled(evidence: CandidateScores, shuffle: list[int]) -> CandidateScores:
    other = CandidateScores(evidence.key, tuple(evidence.candidates[i] for i in shuffle))
    for record in evidence.records:
        moved = {name: [getattr(record, name)[i] for i in shuffle] for name in ("log_odds", "log_likelihood")}
        other.take(replace(record, **moved))
    return other


@each_ranker
@given(data=st.data())
def test_every_order_is_by_score_then_votes_then_the_input(ranker: Ranker, data: st.DataObject, evidences: Any) -> None:
    evidence = data.draw(evidences())
    ranking = ranker.rank(evidence)
    key = keys(evidence, ranking)
    assert ranking.order.tolist() == sorted(range(len(key)), key=lambda i: (key[i], i))


@each_ranker
@given(data=st.data())
def test_the_order_of_the_input_settles_full_ties_and_nothing_else(
    ranker: Ranker, data: st.DataObject, evidences: Any
) -> None:
    evidence = data.draw(evidences())
    shuffle = data.draw(st.permutations(range(len(evidence.candidates))))
    one, two = ranker.rank(evidence), ranker.rank(shuffled(evidence, shuffle))
    before, after = keys(evidence, one), keys(shuffled(evidence, shuffle), two)
    assert [before[i] for i in one.order] == [after[i] for i in two.order]
    for field in ("score", "p_correct", "stderr"):
        moved = getattr(one, field)[np.array(shuffle, int)]
        assert np.allclose(moved, getattr(two, field), equal_nan=True)


@each_ranker
@given(data=st.data())
def test_every_probability_is_one_and_falls_along_the_order(
    ranker: Ranker, data: st.DataObject, evidences: Any
) -> None:
    ranking = ranker.rank(data.draw(evidences()))
    p = ranking.p_correct[ranking.order]
    known = p[~np.isnan(p)]
    assert ((known >= 0) & (known <= 1)).all()
    assert (np.diff(known) <= 1e-7).all()


@given(data=st.data())
def test_voting_ignores_the_model_and_requests_nothing(data: st.DataObject, evidences: Any) -> None:
    evidence = data.draw(evidences())
    unscored = CandidateScores(evidence.key, evidence.candidates)
    assert MajorityVote().rank(evidence).order.tolist() == MajorityVote().rank(unscored).order.tolist()
    assert MajorityVote().rank(evidence).score.tolist() == evidence.votes.tolist()
    assert (
        MajorityVote().ask(evidence, range(len(evidence.candidates)), 0) == ()
        and len(MajorityVote().table(evidence)) == 0
    )


@pytest.mark.parametrize("name", ("votes", "verifier", "likelihood", "product", "combined", "ensemble"))
@given(data=st.data(), harder=st.lists(st.integers(-50, 50), min_size=3, max_size=3))
def test_a_view_that_is_harder_for_all_candidates_changes_no_order(
    name: str, data: st.DataObject, harder: list[int], evidences: Any
) -> None:
    evidence = data.draw(evidences(scores=st.integers(-3, 3).map(float)))
    other = CandidateScores(evidence.key, evidence.candidates)
    for record in evidence.records:
        moved = {
            field: [x + harder[record.view] for x in getattr(record, field)] for field in ("log_odds", "log_likelihood")
        }
        other.take(replace(record, **moved))
    assert RANKERS[name].rank(evidence).order.tolist() == RANKERS[name].rank(other).order.tolist()


@each_judge
@given(data=st.data())
def test_differences_of_paired_means_are_those_of_the_scores(
    ranker: Ranker, data: st.DataObject, evidences: Any
) -> None:
    evidence = data.draw(evidences(scores=st.integers(-3, 3).map(float)))
    means, score = paired_means(ranker.table(evidence)), ranker.rank(evidence).score
    if len(evidence.records) and len(means):
        assert means - means[0] == pytest.approx(score - score[0], abs=1e-9)


@each_judge
def test_a_judge_requests_scores_of_all_live_candidates(ranker: Ranker, scores_of: Any) -> None:
    evidence = scores_of([[0.0, 1.0, 2.0]])
    members = range(2) if isinstance(ranker, Ensemble) else range(1)
    expected = tuple(ScoringRequest(evidence.key, 1, (0, 2), member=member) for member in members)
    assert ranker.ask(evidence, [0, 2], 1) == expected and ranker.kinds == ("verify",)


def test_a_combination_without_weight_on_a_model_requests_nothing(scores_of: Any) -> None:
    evidence = scores_of([[1.0, 2.0]], [[-1.0, -2.0]])
    for weights in ({"votes": 1.0, "order": 2.0}, {"votes": 1.0, "verifier": 0.0, "likelihood": 0.0}):
        assert LogLinearRanker(weights).kinds == () and LogLinearRanker(weights).ask(evidence, [0, 1], 0) == ()
    for weights in ({"verifier": 1.0}, {"votes": 1.0, "likelihood": 0.1}, None):
        assert (
            LogLinearRanker(weights).kinds == ("verify",)
            and len(LogLinearRanker(weights).ask(evidence, [0, 1], 0)) == 1
        )


def test_ties_go_to_votes_then_the_input(scores_of: Any) -> None:
    nan = math.nan
    evidence = scores_of([[1, 1, 1, 1, 2, nan]], [[-3, -2, -2, -9, -9, 0]], votes=[1, 1, 1, 2, 1, 9])
    assert Verifier().rank(evidence).order.tolist() == [4, 3, 0, 1, 2, 5]
    assert Likelihood().rank(evidence).order.tolist() == [5, 1, 2, 0, 3, 4]
    assert MajorityVote().rank(evidence).order.tolist() == [5, 3, 0, 1, 2, 4]


def test_the_verifier_gives_the_mean_its_error_and_its_probability(scores_of: Any) -> None:
    evidence = scores_of([[1, -900], [3, -900]])
    ranking = Verifier().rank(evidence)
    assert ranking.score.tolist() == [2, -900]
    assert ranking.stderr.tolist() == [1, 0]
    assert ranking.p_correct == pytest.approx([1 / (1 + math.exp(-2)), 0])
    assert Verifier(Temperature(0.5, -1)).rank(evidence).p_correct == pytest.approx([0.5, 0], abs=1e-6)


def test_a_likelihood_is_shared_among_the_candidates_however_small_it_is(scores_of: Any) -> None:
    evidence = scores_of([[0] * 3] * 2, [[-5000, -5001, math.nan], [-5002, -5001, math.nan]])
    assert Likelihood().rank(evidence).p_correct == pytest.approx([0.5, 0.5, 0])


def test_a_plain_product_of_experts_grows_sharper_with_every_view(scores_of: Any) -> None:
    evidence = scores_of([[0, 0]] * 3, [[-1, -2], [-1, -3], [-4, -4]])
    mean, product = (Likelihood(over).rank(evidence) for over in ("mean", "sum"))
    assert mean.score.tolist() == [-2, -3] and product.score.tolist() == [-6, -9]
    assert product.p_correct[0] == pytest.approx(1 / (1 + math.exp(-3)))


def test_a_candidate_that_left_early_is_compared_under_the_views_it_had(scores_of: Any) -> None:
    nan = math.nan
    evidence = scores_of([[5, 4.5, 0], [-5, -6, nan], [-5, -5.5, nan]])
    assert Verifier().rank(evidence).order.tolist() == [0, 1, 2]


@each_ranker
@pytest.mark.parametrize("votes", ([], [3], [1, 2]))
def test_candidates_that_no_model_judged_are_ordered_by_votes(ranker: Ranker, votes: list[int], scores_of: Any) -> None:
    ranking = ranker.rank(scores_of([], votes=votes))
    assert ranking.order.tolist() == sorted(range(len(votes)), key=lambda i: -votes[i])
    assert {len(x) for x in (ranking.order, ranking.score, ranking.p_correct, ranking.stderr)} == {len(votes)}


def test_a_combination_adds_its_sources_by_their_weights(scores_of: Any) -> None:
    evidence = scores_of([[1.0, 2.0], [3.0, 2.0]], [[-10.0, -30.0], [-20.0, -10.0]], votes=[1, 8])
    ranking = LogLinearRanker({"verifier": 2.0, "likelihood": 0.1, "votes": 0.5}, none=2.0).rank(evidence)
    score = [2 * 2 - 1.5, 2 * 2 - 2 + 0.5 * math.log(8)]
    assert ranking.score == pytest.approx(score)
    total = sum(map(math.exp, [*score, 2.0]))
    assert ranking.p_correct == pytest.approx([math.exp(x) / total for x in score])


def test_a_missing_score_of_a_source_is_its_lowest_of_another_candidate(scores_of: Any) -> None:
    evidence = scores_of([[1.0, -2.0, math.nan]], votes=[1, 1, 5])
    assert LogLinearRanker({"verifier": 1.0}).rank(evidence).score.tolist() == [1, -2, -2]
    assert LogLinearRanker({"likelihood": 1.0, "solver": 1.0}).rank(evidence).score.tolist() == [0, 0, 0]
    other = CandidateScores(
        evidence.key, tuple(Candidate(c.grid, log_likelihood=-i) for i, c in enumerate(evidence.candidates))
    )
    assert LogLinearRanker({"solver": 2.0}).rank(other).score.tolist() == [0, -2, -4]
    assert LogLinearRanker({"order": 2.0}).rank(other).score == pytest.approx([0, -2 * math.log(2), -2 * math.log(3)])


def test_an_ensemble_ranks_by_the_weighted_mean_of_its_members(scores_of: Any) -> None:
    evidence = scores_of([[0.0, 2.0]])
    evidence.take(ViewScores(evidence.key, 0, [8.0, 0.0], [math.nan] * 2, member=1))
    assert Ensemble(Verifier(), 2).rank(evidence).score.tolist() == [4, 1]
    assert Ensemble(Verifier(), 2, [3.0, 1.0]).rank(evidence).score.tolist() == [2, 1.5]
    assert Ensemble(Verifier(), 1).rank(evidence).score.tolist() == [0, 2]
    assert Ensemble(Verifier(), 2).name == "verifier-ensemble"


def test_a_lone_candidate_is_certain_only_as_far_as_it_can_be_calibrated(scores_of: Any) -> None:
    evidence = scores_of([[0.0]], [[-3.0]])
    assert Likelihood().rank(evidence).p_correct.tolist() == [1]
    assert Likelihood(calibration=Temperature(0.1, -3)).rank(evidence).p_correct == pytest.approx([0.5])


class Backwards(Ranker):
    """Somebody's own."""

    name = "backwards"

    def rank(self, evidence: CandidateScores) -> Ranking:
        return self._ranking(evidence, np.arange(len(evidence.candidates), dtype=float))


@pytest.mark.parametrize(
    ("given", "kind"),
    (
        ("MajorityVote", MajorityVote),
        ("Verifier", Verifier),
        ("lightning_arc.ranking.rankers.Likelihood", Likelihood),
        ({"class_path": "LogLinearRanker", "init_args": {"weights": {"votes": 2.0}, "none": 1}}, LogLinearRanker),
        (
            {
                "class_path": "lightning_arc.ranking.rankers.Ensemble",
                "init_args": {
                    "members": 2,
                    "ranker": {"class_path": "ComparativeRanker", "init_args": {"style": "pairs"}},
                },
            },
            Ensemble,
        ),
        (
            {
                "class_path": "Verifier",
                "init_args": {
                    "calibration": {
                        "class_path": "lightning_arc.ranking.calibration.Temperature",
                        "init_args": {"scale": 0.5},
                    }
                },
            },
            Verifier,
        ),
        ({"class_path": f"{Backwards.__module__}.Backwards"}, Backwards),
    ),
)
def test_settings_name_any_ranker_by_its_class(given: Any, kind: type) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--ranker", type=Ranker)
    made = parser.instantiate_classes(parser.parse_object({"ranker": given})).ranker
    assert type(made).__name__ == kind.__name__


def test_a_ranker_of_somebodys_own_orders_as_it_likes(scores_of: Any) -> None:
    assert Backwards().rank(scores_of([[0, 0, 0]])).order.tolist() == [2, 1, 0]


def test_the_fewest_mismatches_come_first_and_weigh_in_a_combination(scores_of: Any) -> None:
    evidence = scores_of([[0.0] * 3, [0.0] * 3])
    for view, counts in enumerate(([5.0, 1.0, math.nan], [3.0, 2.0, math.nan])):
        evidence.take(ViewScores(evidence.key, view + 2, [0.0] * 3, [0.0] * 3, mismatches=counts))
    ranking = Mismatches().rank(evidence)
    assert ranking.order.tolist() == [1, 0, 2] and ranking.score[:2].tolist() == [-4.0, -1.5]
    combined = LogLinearRanker({"mismatches": 2.0, "order": 1.0})
    assert combined.kinds == ("verify",)
    np.testing.assert_allclose(combined.rank(evidence).score, [-8, -3 - math.log(2), -8 - math.log(3)])


@pytest.mark.parametrize(
    ("make", "complaint"),
    (
        (
            lambda: LogLinearRanker({"verifyer": 1.0}),
            r"ranker.weights: no source 'verifyer', there are verifier, likelihood",
        ),
        (lambda: Ensemble(Verifier(), 2, [1.0]), r"ranker.weights: expected 2 of 0 and more"),
        (lambda: Ensemble(Verifier(), 2, [0.0, 0.0]), "not all 0"),
        (lambda: Ensemble(Verifier(), 0), "expected 0"),
    ),
)
def test_settings_that_make_no_sense_are_refused(make: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        make()
