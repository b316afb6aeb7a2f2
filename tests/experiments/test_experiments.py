"""Experiments: what is measured, what counts as a difference, and a small one from training to its page."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.errors import DataError
from lightning_arc.experiments import run as running
from lightning_arc.experiments.report import MEASURES, Difference, difference, measures
from lightning_arc.experiments.run import Arm, check, experiment, repeat_command
from lightning_arc.ranking.records import ViewScores
from lightning_arc.ranking.scores import CandidateScores

pytestmark = pytest.mark.slow

PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
OTHER = {"input": [[0, 2], [2, 0]], "output": [[2, 0], [0, 2]]}
MODEL = {"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate_size": 16}


def judged(
    task: str, right: int, log_odds: list[list[float]], likelihood: list[list[float]], misses: list[list[float]]
):
    """A pair whose candidates have two cells each, under as many views as there are rows."""
    n, key = len(log_odds[0]), PairKey(task, "test", 0)
    candidates = tuple(Candidate(np.full((1, 2), i, np.int8)) for i in range(n))
    evidence = CandidateScores(key, candidates, [i == right for i in range(n)])
    for view, rows in enumerate(zip(log_odds, likelihood, misses, strict=True)):
        evidence.take(ViewScores(key, view, rows[0], rows[1], mismatches=rows[2]))
    return evidence


def test_measures_are_means_over_views_of_the_right_output_against_each_wrong_one() -> None:
    evidence = [
        judged("a", 0, [[1, 0, 2, 3]], [[-4, -5, -6, -3]], [[0, 1, 0, 2]]),
        judged("b", 1, [[0, 1], [0, 3]], [[-1, -8], [-1, -4]], [[0, 2], [0, 1]]),
    ]
    found = measures(evidence)
    assert list(found) == list(MEASURES)
    expected = {
        "nats a cell": [2, 3],
        "exact": [1, 0],
        "AUROC likelihood": [2 / 3, 0],
        "AUROC mismatches": [2.5 / 3, 0],
        "AUROC verdict": [1 / 3, 1],
        "top-2 likelihood": [1, 1],
        "top-2 verdict": [0, 1],
    }
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values), name


def test_a_difference_holds_if_its_interval_leaves_out_nothing_and_all_seeds_agree() -> None:
    rng = np.random.default_rng(0)
    tasks, one = [f"t{i // 2}" for i in range(80)], rng.normal(0, 1, (3, 80))
    clear = difference(one, one + 0.5 + rng.normal(0, 0.1, (3, 80)), tasks)
    assert clear.holds and clear.mean == pytest.approx(0.5, abs=0.05) and clear.interval[0] < 0.5 < clear.interval[1]
    assert not difference(one, one + rng.normal(0, 1, (3, 80)), tasks).holds
    torn = difference(one, one + np.array([[1.0], [1.0], [-0.1]]), tasks)
    assert not torn.agrees and torn.interval[0] > 0 and not torn.holds
    assert Difference(-1.0, (-2.0, -0.5), True, 3).holds and not Difference(-1.0, (-2.0, -0.5), True, 2).holds
    assert not Difference(-1.0, (-2.0, -5e-19), True, 3).holds  # 0, but for rounding


@pytest.mark.parametrize(
    ("arms", "seeds", "complaint"),
    [
        ({"a": Arm()}, [1], "arms: 1, expected two at least"),
        ({"a": Arm(), "b": Arm()}, [1], r"predict: no data\.tasks in any config"),
        ({"a": Arm(), "b": Arm()}, [], r"seeds: \[\], expected one at least"),
        ({"a": Arm(), "b": Arm()}, [1, 1], "seeds"),
        ({"a": Arm(), "b": Arm(fit_of="c")}, [1], r"arms\.b\.fit_of: 'c' is no arm with a training of its own"),
        ({"a": Arm(), "b": Arm(fit_of="a"), "c": Arm(fit_of="b")}, [1], r"arms\.c\.fit_of"),
        ({"a": Arm(), "b": Arm(fit={"x": 1}, fit_of="a")}, [1], r"arms\.b: has settings of fit"),
    ],
)
def test_settings_that_make_no_sense_are_named(arms: dict[str, Arm], seeds: list[int], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        experiment("e", "?", [], [], arms, seeds)


def test_the_experiments_of_the_repository_have_valid_settings_and_configs_that_exist(repo_root: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(experiment, as_positional=False)
    found = [path for path in (repo_root / "configs/experiments").glob("*.yaml") if "arms:" in path.read_text()]
    trained = {"positions", "mixture", "recipe", "sources", "test_time", "wrong_predictions", "composition", "prompts"}
    assert {path.stem for path in found} == trained
    for path in found:
        parsed = parser.instantiate_classes(parser.parse_string(path.read_text()))
        published = json.loads((repo_root / "docs" / "results" / f"{path.stem}.json").read_text())
        assert parsed.name == path.stem and parsed.seeds == published["seeds"]
        assert all((repo_root / config).is_file() for config in (*parsed.fit, *parsed.predict))
        check(parsed.arms, parsed.seeds)
        page = (repo_root / "docs" / "results" / f"{path.stem}.md").read_text()
        assert page.splitlines()[3] == repeat_command(parsed.name, [*parsed.fit, *parsed.predict], parsed.arms)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment of two arms that share a training of two steps, with all its files in a folder."""
    (tmp_path / "tasks.json").write_text(
        json.dumps({f"t{i}": {"train": [PAIR, OTHER], "test": [PAIR]} for i in range(3)})
    )
    (tmp_path / "candidates.json").write_text(json.dumps({f"t{i}": [[[[3, 3]], [[1, 0], [0, 2]]]] for i in range(3)}))
    fit = {
        "model": {"scratch": MODEL, "warmup_steps": 0, "schedule": "constant"},
        "data": {"train_datasets": [{"path": str(tmp_path / "tasks.json")}], "allow_leaks": True, "batch_size": 2},
        "trainer": {
            "max_steps": 2,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "callbacks": [
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}}
            ],
        },
    }
    predict = {
        "data": {
            "tasks": str(tmp_path / "tasks.json"),
            "candidates": [str(tmp_path / "candidates.json")],
            "with_right_output": True,
            "n_views": 1,
        },
        "trainer": {
            "logger": False,
            "accelerator": "cpu",
            "callbacks": [{"class_path": "lightning_arc.inference.ranking_writer.RankingWriter"}],
        },
    }
    for name, settings in (("fit", fit), ("predict", predict)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    configs = {"fit": [str(tmp_path / "fit.yaml")], "predict": [str(tmp_path / "predict.yaml")]}
    arms = {"one": Arm(), "two": Arm(predict={"data": {"n_views": 2}}, fit_of="one")}
    about = {"name": "views", "question": "How many views?", "folder": "runs", "out": "results", "notes": "*A note.*"}
    return {**about, **configs, "arms": arms, "seeds": [1]}


def test_an_experiment_runs_what_is_not_there_and_reports_what_is(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(**small)
    out = capsys.readouterr().out
    assert [line.split(" ")[3:7] for line in out.splitlines()[:3]] == [
        [*running.PROGRAM, command] for command in ("fit", "predict", "predict")
    ]
    found = json.loads((tmp_path / "results" / "views.json").read_text())
    assert (found["seeds"], found["pairs"], found["tasks"]) == ([1], 3, 3)
    assert found["cost"]["two"]["tokens"] == pytest.approx(2 * found["cost"]["one"]["tokens"], rel=0.05)
    page = (tmp_path / "results" / "views.md").read_text()
    assert page.startswith("# How many views?") and "*A note.*" in page and "![How many views?](views.svg)" in page
    assert all(f"| {measure} |" in page for measure in MEASURES)
    nats = found["arms"]["one"]["nats a cell"]["mean"]
    assert f"{nats:.3f}" in page and 0 < nats < 20
    picture = (tmp_path / "results" / "views.svg").read_text()
    assert "AUROC likelihood" in picture and picture.count("<svg") == 1

    def nothing(*_: Any, **__: Any) -> None:
        pytest.fail("ran again")

    monkeypatch.setattr(subprocess, "Popen", nothing)
    experiment(**small)  # all is there
    experiment(**small | {"seeds": [1, 2], "report_only": True})
    assert "not there yet, and left out: one with seed 2, two with seed 2" in capsys.readouterr().out
    assert (tmp_path / "results" / "views.md").read_text() == page
    experiment(**small | {"seeds": [1, 2], "max_seconds": 0.0})  # no time for another run
    assert "0 s are over" in capsys.readouterr().out
    with pytest.raises(DataError, match="an arm has no run yet"):
        experiment(**small | {"seeds": [2], "report_only": True})


def test_an_arm_that_fails_is_named_with_the_error_of_its_command(small: dict[str, Any]) -> None:
    small["arms"]["one"].fit = {"model": {"learning_rate": -1.0}}
    with pytest.raises(DataError, match=r"^one, seed 1: error: model\.learning_rate is -1\.0.*log\.txt\)$"):
        experiment(**small)


def test_a_training_without_a_last_checkpoint_is_named(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the training left no last.ckpt to rank with"):
        running._newest(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a: [", "bad.yaml: is no YAML"), ("[1, 2]", "bad.yaml: expected settings"), ("data: 3", "predict: data is 3")],
)
def test_configs_that_hold_no_settings_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(DataError, match=complaint):
        experiment("e", "?", [], [str(tmp_path / "bad.yaml")], {"a": Arm(), "b": Arm()}, [1])


def test_a_run_that_was_begun_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    path, config, settings = tmp_path / "run" / "fit.json", tmp_path / "fit.yaml", {"seed_everything": 1}
    config.write_text("a: 1")
    running._check_same(path, [str(config)], settings)
    running._check_same(path, [str(config)], settings)
    complaint = r"run: was begun with other settings; remove it or set another folder"
    with pytest.raises(DataError, match=complaint):
        running._check_same(path, [str(config)], {"seed_everything": 2})
    config.write_text("a: 2")
    with pytest.raises(DataError, match=complaint):
        running._check_same(path, [str(config)], settings)


def test_the_command_line_prints_errors_in_one_line(repo_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("name: e\nquestion: q\nfit: []\npredict: []\narms: {a: {}}\nseeds: [1]\n")
    command = [sys.executable, "-m", "lightning_arc.cli", "experiment", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repo_root)
    assert done.returncode == 2 and re.fullmatch(r"error: arms: 1, expected two at least to compare\n", done.stderr)
