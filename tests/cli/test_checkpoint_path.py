"""Which checkpoint a command uses: keywords of ``ckpt_path``, and the newest whole one of a run."""

import os
from pathlib import Path

import pytest
import torch

from lightning_arc.cli import checkpoint_path
from lightning_arc.cli.checkpoint_path import (
    choose_checkpoint,
    newest_checkpoint,
    remove_forgotten,
    version_to_continue,
)
from lightning_arc.errors import DataError

STATE = {"optimizer_states": [{}], "lr_schedulers": [{}], "loops": {"fit_loop": {}}}


def save(path: Path, step: int, age: int, **content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"state_dict": {}, "pytorch-lightning_version": "2.6.0", "global_step": step, **STATE, **content}
    torch.save(content, path)
    os.utime(path, ns=(10**18 - age * 10**9,) * 2)
    return path


def tear(path: Path) -> None:
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folder with eleven checkpoints in four versions, the newest in version_2."""
    for version in range(4):
        folder = tmp_path / "run" / "lightning_logs" / f"version_{version}" / "checkpoints"
        for i, name in enumerate(["last.ckpt", "epoch=0-step=9.ckpt", "mine.ckpt"][: 3 if version else 2]):
            save(folder / name, 10 * version - i, age=10 * abs(version - 2) + i)
    return tmp_path / "run"


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """The lines of information, and of warnings, so far."""
    printed: list[str] = []
    monkeypatch.setattr(checkpoint_path, "rank_zero_info", printed.append)
    monkeypatch.setattr(checkpoint_path, "rank_zero_warn", lambda line: printed.append(f"warning: {line}"))
    return printed


def test_last_is_the_newest_checkpoint_of_all_versions(run, lines):
    chosen = choose_checkpoint("last", str(run), "fit")
    assert chosen.path == str(run / "lightning_logs/version_2/checkpoints/last.ckpt") and chosen.step == 20
    assert lines == [f"continuing from {chosen.path} (ckpt_path last)"]
    assert choose_checkpoint("last", str(run), "predict").path == chosen.path


def test_a_torn_and_a_damaged_checkpoint_are_passed_over_with_a_line_each(run, lines):
    folder = run / "lightning_logs" / "version_2" / "checkpoints"
    tear(folder / "last.ckpt")
    content = bytearray((folder / "epoch=0-step=9.ckpt").read_bytes())
    content[content.find(b"global_step")] ^= 1
    (folder / "epoch=0-step=9.ckpt").write_bytes(content)
    chosen = choose_checkpoint("last", str(run), "fit")
    assert Path(chosen.path) == folder / "mine.ckpt"
    assert len(lines) == 3 and all(line.count("\n") == 0 for line in lines)
    assert (
        f"warning: {folder / 'last.ckpt'}: not a checkpoint, or only a part of one; passed over (ckpt_path last)"
        in lines
    )
    assert any("step=9.ckpt: damaged checkpoint, Bad CRC-32" in line for line in lines)


def test_weights_alone_are_passed_over_where_training_continues(tmp_path, lines):
    save(tmp_path / "new.ckpt", 9, age=0, optimizer_states=[])
    old = save(tmp_path / "old.ckpt", 5, age=1)
    assert choose_checkpoint("last", str(tmp_path), "fit").path == str(old)
    assert choose_checkpoint("last", str(tmp_path), "predict").step == 9
    with pytest.raises(DataError, match="new.ckpt: training cannot continue from it, it has no optimizer_states"):
        choose_checkpoint(str(tmp_path / "new.ckpt"), None, "fit")


def test_training_starts_from_the_beginning_where_there_is_no_whole_checkpoint(tmp_path, lines):
    assert choose_checkpoint("last", str(tmp_path), "fit") is None
    assert lines == [f"{tmp_path}: no whole checkpoint, training starts from the beginning (ckpt_path last)"]
    tear(save(tmp_path / "last.ckpt", 3, 0))
    assert choose_checkpoint("last", str(tmp_path), "fit") is None and len(lines) == 3
    with pytest.raises(DataError, match=f"^ckpt_path last: no whole checkpoint in {tmp_path} "):
        choose_checkpoint("last", str(tmp_path), "predict")


def test_checkpoints_in_a_folder_that_the_settings_name_are_found(tmp_path, lines):
    path = save(tmp_path / "elsewhere" / "a.ckpt", 3, 0)
    assert choose_checkpoint("last", str(tmp_path / "run"), "fit", [str(path.parent)]).path == str(path)


def test_in_the_working_directory_only_a_runs_folders_are_looked_at(tmp_path, lines, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "somewhere" / "a.ckpt", 9, 0)
    path = save(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt", 3, 1)
    assert choose_checkpoint("last", None, "fit").path == str(path)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "registry.ckpt", "hpc_ckpt_1.ckpt", "lasting", "none"])
def test_a_file_that_does_not_exist_is_no_such_checkpoint_whatever_its_name_begins_with(tmp_path, name):
    for command in ("fit", "validate", "predict", "export"):
        with pytest.raises(DataError, match=f"^{name}: no such checkpoint"):
            choose_checkpoint(name, str(tmp_path), command)


@pytest.mark.parametrize("name", ["best", "registry", "registry:model:version:1"])
def test_keywords_that_mean_nothing_here_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=f"^ckpt_path: {name} is not supported"):
        choose_checkpoint(name, str(tmp_path), "fit")


def test_what_a_cluster_saved_last_is_found(tmp_path, lines):
    with pytest.raises(DataError, match="^ckpt_path hpc: no whole checkpoint"):
        choose_checkpoint("hpc", str(tmp_path), "fit")
    for number in (2, 10):
        save(tmp_path / f"hpc_ckpt_{number}.ckpt", number, 0)
    assert choose_checkpoint("hpc", str(tmp_path), "fit").step == 10


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder, expected a checkpoint's file"):
        choose_checkpoint(str(tmp_path), None, "predict")


def test_a_run_goes_on_in_the_folder_of_its_latest_checkpoint(run, lines):
    assert version_to_continue(choose_checkpoint("last", str(run), "fit"), str(run)) == 2
    folder = run / "lightning_logs" / "version_1" / "checkpoints"
    assert version_to_continue(choose_checkpoint(str(folder / "last.ckpt"), None, "fit"), str(run)) == 1
    earlier = choose_checkpoint(str(folder / "epoch=0-step=9.ckpt"), None, "fit")
    assert version_to_continue(earlier, str(run)) is None  # the later one stays as it is
    tear(folder / "last.ckpt")
    assert version_to_continue(earlier, str(run)) == 1
    assert version_to_continue(earlier, str(run.parent)) is None
    assert newest_checkpoint(str(run)).parent.parent.name == "version_2"


def test_checkpoints_that_a_killed_run_did_not_remove_are_removed(tmp_path, lines):
    state = {"Saving": {"best_model_path": "epoch=0-step=30.ckpt", "last_model_path": "/there/last.ckpt"}}
    for step in (10, 20, 30):
        save(tmp_path / f"epoch=0-step={step}.ckpt", step, 0)
    save(tmp_path / "mine-epoch=0-step=10.ckpt", 10, 0)
    last = save(tmp_path / "last.ckpt", 30, 0, callbacks=state)
    remove_forgotten(choose_checkpoint(str(last), None, "fit"))
    names = {"epoch=0-step=30.ckpt", "last.ckpt", "mine-epoch=0-step=10.ckpt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for step in (1, 2, 3):  # of a run that keeps them all
        save(tmp_path / f"epoch=0-step={step}.ckpt", step, 0)
    remove_forgotten(choose_checkpoint(str(last), None, "fit"))
    assert len([*tmp_path.iterdir()]) == 6
