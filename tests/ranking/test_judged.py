"""What became of each test input: judged, too long, not reached, in part, or with nothing to score."""

import math
from typing import Any

import numpy as np

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.ranking.coverage import count_coverage, coverage, explain, is_judged
from lightning_arc.ranking.rankers import (
    ComparativeRanker,
    Ensemble,
    Likelihood,
    LogLinearRanker,
    MajorityVote,
    Verifier,
)
from lightning_arc.ranking.records import ScoringRequest, ViewScores, no_answer
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.ranking.stopping import StoppingConfig

TWO = StoppingConfig(min_views=2, max_views=2, confidence=1.0)
NO = [math.nan] * 2


def test_early_stopping_is_no_missing_view_but_a_budget_is(scores_of: Any) -> None:
    clear = scores_of([[9, 0, -9]] * 4)
    stops, spent = (
        StoppingConfig(min_views=2, max_views=8),
        StoppingConfig(min_views=2, max_views=8, max_tokens=1, max_seconds=0),
    )
    assert coverage(clear, Verifier(), stops) == coverage(clear, Verifier(), spent) == "judged"
    assert coverage(clear.first_views(1), Verifier(), spent) == "partly_not_reached"
    assert coverage(clear.first_views(0), Verifier(), spent) == "not_reached"


def test_what_is_too_long_counts_as_such_even_where_other_views_were_not_reached(scores_of: Any) -> None:
    assert coverage(scores_of([NO]), Verifier(), TWO) == "too_long"
    assert coverage(scores_of([[1, 0], NO]), Verifier(), TWO) == "partly_too_long"


def test_every_member_of_an_ensemble_must_have_answered(scores_of: Any) -> None:
    evidence = scores_of([[1, 0], [1, 0]])
    both = Ensemble(Verifier(), 2)
    assert coverage(evidence, both, TWO) == "partly_not_reached"
    for view in range(2):
        evidence.take(ViewScores(evidence.key, view, [1.0, 0.0], [-1.0, -2.0], member=1))
    assert coverage(evidence, both, TWO) == "judged"


def test_where_there_is_nothing_to_score_nothing_is_missing(scores_of: Any) -> None:
    alone = CandidateScores(PairKey("t", "test", 0), (Candidate(np.zeros((1, 1), np.int8)),))
    assert (
        coverage(alone, ComparativeRanker(), TWO) == "not_asked" and coverage(alone, Verifier(), TWO) == "not_reached"
    )
    assert (
        coverage(scores_of([], votes=[]), Verifier(), TWO)
        == coverage(scores_of([NO]), MajorityVote(), TWO)
        == "not_asked"
    )
    assert coverage(scores_of([[1, 0]] * 2), ComparativeRanker(), TWO) == "not_reached"  # verdicts are no selections


def test_votes_that_a_ranker_weighs_are_no_judgement(scores_of: Any) -> None:
    unscored, verdicts = scores_of([NO]), scores_of([[1, 0]])
    assert not is_judged(unscored, LogLinearRanker()) and is_judged(verdicts, LogLinearRanker())
    assert is_judged(verdicts, Verifier()) and not is_judged(verdicts, Likelihood())
    assert not is_judged(verdicts, LogLinearRanker({"likelihood": 1.0, "votes": 1.0}))


def test_the_limit_is_named_where_it_was_recorded(scores_of: Any) -> None:
    old = scores_of([NO])
    assert explain(count_coverage(["too_long"], [old])) == [
        "Not judged by the model, so ordered without it: 1 test input too long for data.max_seq_len."
    ]
    new = scores_of([], votes=[1, 1])
    new.take(no_answer(ScoringRequest(new.key, 0, (0, 1)), 2, 640))
    assert (
        "2 test inputs too long for data.max_seq_len 640." in explain(count_coverage(["too_long"] * 2, [old, new]))[0]
    )
    assert explain(count_coverage(["judged", "not_asked"], [])) == explain(None) == []
