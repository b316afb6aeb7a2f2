"""The ranker that was fitted before: read from its file, with or without the order of the candidates."""

from pathlib import Path
from typing import Any

import pytest

from lightning_arc.cli.fit_ranker import write_ranker
from lightning_arc.errors import DataError
from lightning_arc.ranking.calibration import Temperature
from lightning_arc.ranking.rankers import LogLinearRanker, Verifier
from lightning_arc.ranking.rankers.fitted import Fitted, warn_of_other_model


@pytest.fixture
def written(tmp_path: Path) -> Path:
    ranker = LogLinearRanker({"verifier": 1.5, "votes": 0.5, "order": 2.0}, 0.25, Temperature(0.5, 0.125))
    write_ranker(ranker, tmp_path / "ranker.yaml")
    return tmp_path / "ranker.yaml"


def test_what_fit_wrote_ranks_as_it_did(written: Path, scores_of: Any) -> None:
    fitted, evidence = Fitted(str(written)), scores_of([[0.5, 1.0, 0.0]], votes=[3, 1, 2])
    plain = LogLinearRanker({"verifier": 1.5, "votes": 0.5, "order": 2.0}, 0.25, Temperature(0.5, 0.125)).rank(evidence)
    assert fitted.rank(evidence).p_correct.tolist() == plain.p_correct.tolist()
    assert fitted.calibrated and fitted.kinds == ("verify",)


def test_the_bundled_ones_go_by_the_order_or_do_without_it_and_both_are_calibrated() -> None:
    with_order, without = Fitted(), Fitted(order=False)
    assert with_order.weights["order"] > 0 and not without.weights.get("order")
    assert with_order.calibrated and without.calibrated and None not in (with_order.none, without.none)


def test_of_a_folder_the_ranker_with_or_without_the_order_is_taken(written: Path, scores_of: Any) -> None:
    write_ranker(LogLinearRanker({"verifier": 1.0}), written.parent / "ranker_without_order.yaml")
    folder = str(written.parent)
    assert Fitted(folder).weights["order"] == 2.0
    assert Fitted(folder, order=False).weights == {"verifier": 1.0}
    with pytest.raises(DataError, match=r"bundled:other: no such bundled adapter, there are "):
        Fitted("bundled:other")


def test_a_test_input_that_no_model_judged_is_ranked_by_its_solvers(scores_of: Any) -> None:
    unscored = scores_of([], votes=[1, 5, 2])
    ranking = Fitted(order=False).rank(unscored)
    assert ranking.order.tolist() == [1, 2, 0] and 0 < ranking.p_correct[1] < 1
    assert Fitted().rank(scores_of([], votes=[2, 2, 2])).order.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "content", [None, "model: {ranker: {class_path: Nothing}}", "a: [", "model: {learning_rate: 1.0}"]
)
def test_a_file_without_a_ranker_is_one_clear_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ranker.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"ranker\.yaml: no ranker could be read \(model\.ranker\.path\): .") as error:
        Fitted(str(path))
    assert "\n" not in str(error.value)


def test_rankers_of_another_kind_and_with_an_order_that_is_not_wanted_are_refused(
    written: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"goes by the order of the candidates, and model\.ranker\.order is false"):
        Fitted(str(written), order=False)
    path = tmp_path / "other.yaml"
    name = f"{Verifier.__module__}.{Verifier.__name__}"
    path.write_text(f"model: {{ranker: {{class_path: {name}}}}}")
    with pytest.raises(DataError, match=r"other\.yaml: no combined ranker"):
        Fitted(str(path))


def test_another_model_than_the_one_it_was_fitted_with_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    warn_of_other_model("bundled")
    assert not recwarn
    with pytest.warns(UserWarning, match=r"^last\.ckpt: the default ranker was fitted with the bundled model"):
        warn_of_other_model("last.ckpt")
