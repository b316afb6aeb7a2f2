"""Commands on the files that people have, in one process: what is passed over, where results go, what is refused."""

import json
import sys
import warnings

import pytest

from lightning_arc.cli.command_line import ArcCLI
from lightning_arc.cli.merge import submissions
from lightning_arc.cli.one_line import one_line_errors
from lightning_arc.cli.pool import build_pool
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.errors import DataError

PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
TASK = {"train": [PAIR, PAIR], "test": [PAIR]}
LARGE_DEMONSTRATION = {"train": [PAIR, {"input": [[0] * 31], "output": [[1]]}], "test": [PAIR, PAIR]}
LARGE_TEST = {"train": [PAIR], "test": [{"input": [[0] * 32]}]}
SCRATCH = "--model.scratch={hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}"


@pytest.fixture
def command(repo_root, monkeypatch, capsys):
    """Run a command in this process and return its status, and its standard error."""
    monkeypatch.chdir(repo_root)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def command(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, arguments)])
        try:
            with warnings.catch_warnings(), one_line_errors():
                ArcCLI()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return command


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, task in {"a": TASK, "b": LARGE_DEMONSTRATION, "c": LARGE_TEST}.items():
        (folder / f"{name}.json").write_text(json.dumps(task))
    return folder


@pytest.fixture
def candidates(tmp_path):
    path = tmp_path / "candidates" / "a.json"
    path.parent.mkdir()
    path.write_text(json.dumps([{"attempt_1": {"answer": [[5]]}, "attempt_2": {"answer": None}}]))
    return path.parent


@pytest.mark.parametrize("only_with_candidates", ["true", "false"])
def test_a_submission_has_placeholders_for_tasks_that_are_passed_over(
    command, tasks, candidates, tmp_path, only_with_candidates
):
    given = "--data.tasks", tasks, "--data.candidates", candidates, "--trainer.default_root_dir", tmp_path / "out"
    how = "--model.ranker", "MajorityVote", "--data.only_with_candidates", only_with_candidates
    status, err = command("predict", "--config", "configs/rank.yaml", *given, *how)
    assert (
        status == 0 and f"{tasks}: 2 of 3 tasks passed over, with a grid of more than 30 rows or columns: b, c" in err
    )
    none = {"attempt_1": [[0]], "attempt_2": [[0]]}
    submission = json.loads((tmp_path / "out" / "submission.json").read_text())
    assert submission == {"a": [none | {"attempt_1": [[5]]}], "b": [none, none], "c": [none]}


def test_oversized_tasks_are_refused_where_that_is_asked_for(command, tasks, candidates, tmp_path):
    given = "--data.tasks", tasks, "--data.candidates", candidates, "--trainer.default_root_dir", tmp_path / "out"
    status, err = command("predict", "--config", "configs/rank.yaml", *given, "--data.oversized_tasks", "error")
    assert status == 2 and err.count("\n") == 1
    assert err.startswith(f"error: {tasks / 'b.json'}: task b: train[1].input is 1 x 31, sides must be 1 to 30")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::lightning_arc.arc.io.tasks.TaskWarning")
@pytest.mark.parametrize("which", ["train", "val", "predict", "leaks"])
def test_training_validation_and_prediction_pass_over_large_tasks_or_refuse_them(tasks, candidates, tmp_path, which):
    good, lines = tmp_path / "good.json", tmp_path / "lines.jsonl"
    good.write_text(json.dumps({"x": TASK}))
    lines.write_text("".join(json.dumps(task) + "\n" for task in (TASK, LARGE_TEST)))
    for source in (tasks, lines) if which == "val" else (tasks,):
        data = {
            "train_datasets": [DatasetConfig(str(tasks if which == "train" else good))],
            "val_dataset": DatasetConfig(str(source)) if which == "val" else None,
            "tasks": str(tasks) if which in ("predict", "leaks") else None,
            "candidates": str(candidates),
            "allow_leaks": True,
        }
        stage = "predict" if which == "predict" else "fit"
        module = ArcDataModule(**data)
        module.setup(stage)
        if which == "train":
            assert module.training.sampler.sources[0].tasks.ids == ["a"]
        if which == "val":
            assert len(module.validation.episodes) == 1
        if which == "predict":
            assert (list(module.prediction.tasks), module.prediction.passed_over) == (["a"], {"b": 2, "c": 1})
        with pytest.raises(DataError, match="sides must be 1 to 30"):
            ArcDataModule(**data, oversized_tasks="error").setup(stage)


@pytest.mark.parametrize("command_name", ["fit", "validate", "rank", "generate", "export"])
@pytest.mark.parametrize("place", ["a file", "beneath a file", "read-only"])
def test_outputs_that_cannot_be_written_are_refused_before_any_work(command, tmp_path, command_name, place):
    (tmp_path / "file").write_text("old")
    folder = {"a file": tmp_path / "file", "beneath a file": tmp_path / "file" / "x", "read-only": "/proc/sys"}[place]
    option = "folder" if command_name == "export" else "trainer.default_root_dir"
    name = "predict" if command_name in ("rank", "generate") else command_name
    config = [] if name == "export" else ["--config", f"configs/{command_name}.yaml"]
    # Whatever is wrong besides would show later.
    besides = (
        ["--model.model_path", tmp_path / "no-model"] if name != "fit" else ["--data.tasks", tmp_path / "no-tasks"]
    )
    status, err = command(name, *config, *besides, f"--{option}", folder)
    assert status == 2 and err.count("\n") == 1 and err.startswith(f"error: {folder}: ") and f"({option})" in err
    assert (tmp_path / "file").read_text() == "old"


def test_pools_and_merged_files_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(DataError, match=r"is a file, expected a folder \(out\)"):
        build_pool(str(tmp_path / "no-tasks"), str(tmp_path / "file" / "p.parquet"))
    with pytest.raises(DataError, match=r"is a folder, expected the name of a file \(out\)"):
        submissions(str(tmp_path / "no-tasks"), [], str(tmp_path))


def test_a_long_id_is_ranked_with_test_time_training(command, tmp_path):
    name = "Long/" + "x" * 300
    (tmp_path / "t.json").write_text(json.dumps({name: TASK, name.lower(): TASK}))
    (tmp_path / "c.json").write_text(json.dumps({name: [[[[5]]]], name.lower(): [[[[5]]]]}))
    status, err = command(
        "predict",
        *("--config", "configs/rank.yaml", "--model.model_path", "null", SCRATCH, "--data.n_views", "1"),
        *("--data.tasks", tmp_path / "t.json", "--data.candidates", tmp_path / "c.json"),
        *("--model.test_time.steps", "1", "--model.test_time.r", "2"),
        *("--trainer.default_root_dir", tmp_path / "out", "--trainer.accelerator", "cpu"),
    )
    assert status == 0, err
    adapters = sorted(path.name.lower() for path in (tmp_path / "out" / "adapters").iterdir())
    assert len(set(adapters)) == 2 and all(len(name) < 120 for name in adapters)
    assert set(json.loads((tmp_path / "out" / "submission.json").read_text())) == {name, name.lower()}


def test_a_pool_is_built_of_lines_without_those_that_are_too_large(tmp_path, recwarn):
    lines = tmp_path / "t.jsonl"
    lines.write_text("".join(json.dumps(task) + "\n" for task in (TASK, LARGE_TEST)))
    assert build_pool(str(lines), str(tmp_path / "p.parquet"), wrong_per_pair=2).pairs == 3
    assert [str(w.message) for w in recwarn if "too large a grid" in str(w.message)] == [
        "tasks: 1 of 2 passed over, with too large a grid"
    ]
