"""Metrics: counts over what can be solved, and intervals over tasks."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.ranking.evidence import Evidence
from lightning_arc.ranking.metrics import bootstrap_interval, score_methods
from lightning_arc.ranking.rankers import RANKERS


def scored(evidence: list[Evidence]) -> dict[str, Any]:
    return score_methods(evidence, {n: [r(e) for e in evidence] for n, r in RANKERS.items()}, "verifier")


@given(data=st.data())
def test_accuracies_are_counts_over_solvable_test_inputs(data: st.DataObject, evidences: Any) -> None:
    evidence = data.draw(st.lists(evidences(), min_size=1, max_size=6))
    metrics = scored(evidence)
    solvable = [e for e in evidence if any(e.correct)]
    assert (metrics["n_tests"], metrics["n_solvable"]) == (len(evidence), len(solvable))
    found = {}
    for name, rank in RANKERS.items():
        for k in (1, 2):
            found[name] = [e.correct.index(True) in rank(e).order[:k].tolist() for e in solvable]
            got = metrics["methods"][name]
            expected = sum(found[name]) / len(solvable) if solvable else None
            assert got[f"top{k}"] == (expected if expected is None else pytest.approx(expected))
            low, high = got[f"top{k}_ci"] or (None, None)
            assert low is None if expected is None else 0 <= low <= expected + 1e-9 and expected - 1e-9 <= high <= 1
        top2 = metrics["methods"][name]["top2"]
        assert top2 is None or top2 >= metrics["methods"][name]["top1"]
        if name != "vote":
            gain = metrics["methods"][name]["top2_minus_vote"]
            assert gain is None if top2 is None else gain == pytest.approx(top2 - metrics["methods"]["vote"]["top2"])


@given(data=st.data())
def test_voting_costs_nothing_and_a_model_what_it_computed(data: st.DataObject, evidences: Any) -> None:
    evidence = data.draw(st.lists(evidences(), min_size=1, max_size=4))
    methods = scored(evidence)["methods"]
    cost = ("seconds", "prefix_tokens", "branch_tokens")
    assert [methods["vote"][name] for name in cost] == [0, 0, 0]
    for name in ("verifier", "likelihood"):
        assert [methods[name][c] for c in cost] == [sum(getattr(e, c) for e in evidence) for c in cost]


@given(data=st.data())
def test_unknown_outputs_give_no_accuracy(data: st.DataObject, evidences: Any) -> None:
    metrics = scored([data.draw(evidences(known=False))])
    assert metrics["n_solvable"] is None
    for method in metrics["methods"].values():
        assert method["top1"] is method["top1_ci"] is method["top2"] is method["top2_ci"] is None


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
