"""The table of a validation, and the picture of how true its probabilities come."""

import numpy as np
import pytest

from lightning_arc.model.validation_metrics import Sample
from lightning_arc.ranking.metrics import bootstrap_auroc
from lightning_arc.reporting.drawing import figure_to_array
from lightning_arc.reporting.validation import draw_reliability, print_validation, validation_rows

TASKS = ("a", "a", "b", "c")


def sample(values, others, episodes=(0, 1, 2, 3)) -> Sample:
    return Sample(np.array(values, float), np.array(others, np.int64), np.array(episodes))


SAMPLES = {
    "output-from-examples": sample([0, 0, 0, 0], [9, 9, 9, 9]),
    "verdicts": sample(
        [2.0, -1.0, 3.0, -4.0, -1.0, 1.0, -2.0, 0.5], [1, 0, 1, 0, 1, 0, 0, 1], (0, 0, 1, 1, 2, 2, 3, 3)
    ),
    "vote": sample([1, 0, 0, 1], [1, 1, 0, 1]),
    "log_linear": sample([1, 1, 0, 1], [1, 1, 1, 1]),
}
FOUND = {
    "val/ranking/log_linear_top1": 0.75,
    "val/ranking/log_linear_top1_minus_vote": 0.25,
    "val/ranking/log_linear_mrr": 0.8,
    "val/output-from-examples/exact_match": 0.0,
    "val/output-from-examples/loss": 1.23456789,
    "val/verify-output-from-examples/accuracy": 0.75,
    "val/verify-output-from-examples/auroc": 0.875,
    "val/other/loss": 0.5,
}


def test_each_figure_has_few_digits_its_count_and_an_interval_where_it_is_a_mean():
    rows = {name: rest for name, *rest in validation_rows(FOUND, SAMPLES, TASKS)}
    assert list(rows) == sorted(FOUND)
    assert rows["val/other/loss"] == ["0.500", "", ""]
    assert rows["val/output-from-examples/loss"] == ["1.235", "", "4 prompts"]
    assert rows["val/output-from-examples/exact_match"] == ["0.0%", "0.0% to 56.2%", "4 prompts"]  # of three tasks
    assert rows["val/ranking/log_linear_mrr"] == ["0.800", "", "4 test inputs"]
    value, interval, n = rows["val/ranking/log_linear_top1_minus_vote"]
    assert (value, n) == ("+25.0%", "4 test inputs") and interval.startswith("+0.0% to +")
    value, interval, n = rows["val/verify-output-from-examples/accuracy"]
    low, high = (float(part.rstrip("%")) for part in interval.split(" to "))
    assert (value, n) == ("75.0%", "8 verdicts") and low <= 75 <= high
    low, high = map(float, rows["val/verify-output-from-examples/auroc"][1].split(" to "))
    assert low <= 0.875 <= high


def test_the_table_names_each_figure_whole(capsys):
    print_validation(FOUND, SAMPLES, TASKS)
    out = capsys.readouterr().out
    assert all(name in out for name in FOUND) and "95% interval" in out and "1.23456789" not in out


def test_an_interval_of_the_area_holds_it_and_ties_count_half():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.3
    score, groups = rng.normal(size=400) + right, [str(i // 4) for i in range(400)]
    area = np.mean([(s > score[~right]).mean() for s in score[right]])
    low, high = bootstrap_auroc(score, right, groups)
    assert low < area < high and high - low < 0.2
    assert bootstrap_auroc(np.zeros(400), right, groups) == pytest.approx((0.5, 0.5))
    assert bootstrap_auroc(score, np.ones(400, bool), groups) is None


@pytest.mark.parametrize("n", [1, 200])
def test_a_reliability_diagram_is_a_picture(n):
    rng = np.random.default_rng(0)
    p = rng.random(n)
    picture = figure_to_array(draw_reliability(p, rng.random(n) < p))
    assert picture.shape == (500, 500, 3) and picture.dtype == np.uint8 and picture.min() < 255
