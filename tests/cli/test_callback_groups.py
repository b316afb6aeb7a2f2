"""Callbacks that commands have by themselves, their options, and configs that list the same ones."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar

from lightning_arc.callbacks.pictures import EpisodePictures
from lightning_arc.cli import command_line

SAVED = {  # as earlier versions saved it
    "trainer": {
        "callbacks": [
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"every_n_train_steps": 77, "save_last": True, "save_top_k": 1},
            },
            {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
            {"class_path": "lightning_arc.callbacks.pictures.EpisodePictures", "init_args": {"n": 2}},
            {"class_path": "lightning_arc.callbacks.export.ExportModel"},
            {"class_path": "lightning_arc.inference.ranking_writer.RankingWriter"},
            {"class_path": "lightning.pytorch.callbacks.RichProgressBar"},
        ]
    }
}
OF_TRAINING = ("ModelCheckpoint", "LearningRateMonitor", "EpisodePictures", "ExportModel")
SMALL = (
    "--model.scratch={hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}",
    *("--data.max_seq_len=400", "--data.batch_size=2", "--data.val_dataset=null", "--trainer.accelerator=cpu"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=1"),
)


class Made(command_line.ArcCLI):
    """The command line, which makes everything and runs nothing."""

    def _run_subcommand(self, subcommand):
        pass


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "saved.yaml"
    path.write_text(yaml.safe_dump(SAVED))
    return path


@pytest.fixture
def callbacks(repo_root, monkeypatch):
    """A function that returns the callbacks of a command's trainer."""

    def callbacks(*words) -> list:
        monkeypatch.chdir(repo_root)
        return Made(args=[*map(str, words), "--trainer.accelerator=cpu"]).trainer.callbacks

    return callbacks


def names(callbacks: list) -> Counter:
    return Counter(type(callback).__name__ for callback in callbacks)


def triggers(callbacks: list) -> list[tuple[int, int]]:
    return [(c._every_n_train_steps, c._every_n_epochs) for c in callbacks if isinstance(c, ModelCheckpoint)]


def test_training_has_each_callback_once_with_defaults(callbacks):
    found = callbacks("fit", "--config", "configs/fit.yaml")
    assert all(names(found)[name] == 1 for name in (*OF_TRAINING, "TrainingProgress"))
    (saving,) = [callback for callback in found if isinstance(callback, ModelCheckpoint)]
    assert triggers(found) == [(200, 0)] and saving.save_last is True


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--checkpoint.every_n_train_steps", "4"), (4, 0)),
        (("--checkpoint.every_n_train=4",), (4, 0)),  # a name may be typed in short
        (("--checkpoint.every_n_epochs", "2"), (0, 2)),
        (("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=3"), (3, 0)),
        (("--trainer.callbacks=null",), (200, 0)),
    ],
)
def test_checkpoints_are_saved_when_that_is_typed(callbacks, words, wanted):
    assert triggers(callbacks("fit", "--config", "configs/fit.yaml", *words)) == [wanted]


def test_a_config_that_lists_these_callbacks_has_none_of_them_twice(callbacks, saved):
    found = callbacks("fit", "--config", "configs/fit.yaml", "--config", saved)
    assert all(names(found)[name] == 1 for name in (*OF_TRAINING, "RichProgressBar"))
    assert not names(found)["TrainingProgress"] and triggers(found) == [(77, 0)]
    assert [callback.n for callback in found if isinstance(callback, EpisodePictures)] == [2]


def test_what_is_typed_wins_over_a_listed_callback(callbacks, saved):
    found = callbacks(
        "fit", "--config", saved, "--checkpoint.every_n_train_steps=5", "--pictures.n=1", "--progress.refresh_rate=3"
    )
    assert triggers(found) == [(5, 0)]
    assert [callback.refresh_rate for callback in found if isinstance(callback, RichProgressBar)] == [3]
    assert [callback.n for callback in found if isinstance(callback, EpisodePictures)] == [1]
    assert triggers(callbacks("fit", "--config", saved, "--checkpoint.every_n_epochs=3")) == [(0, 3)]


def test_a_persons_callback_stands_beside_those_of_the_command(callbacks):
    found = callbacks("fit", "--trainer.callbacks+=lightning.pytorch.callbacks.DeviceStatsMonitor")
    assert all(names(found)[name] == 1 for name in (*OF_TRAINING, "DeviceStatsMonitor"))


def test_a_subclass_with_other_arguments_takes_the_place_of_the_commands(callbacks, tmp_path, monkeypatch):
    lines = ["from lightning.pytorch.callbacks import ModelCheckpoint", "class Often(ModelCheckpoint):"]
    lines += ["    def __init__(self, steps: int = 2):", "        super().__init__(every_n_train_steps=steps)"]
    (tmp_path / "a_persons_callbacks.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    found = callbacks("fit", "--trainer.callbacks+=a_persons_callbacks.Often", "--checkpoint.every_n_train_steps=9")
    assert names(found)["Often"] == 1 and triggers(found) == [(2, 0)]


def test_each_callback_can_be_turned_off(callbacks):
    off = ("--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false", "--trainer.logger=false")
    found = callbacks("fit", *off, "--pictures.n=0", "--saved_model.folder=null")
    assert not any(names(found)[name] for name in (*OF_TRAINING, "TrainingProgress"))


@pytest.mark.parametrize("config", ["rank", "generate"])
def test_a_config_of_an_earlier_version_may_list_what_wrote(callbacks, saved, config):
    found = names(callbacks("predict", "--config", f"configs/{config}.yaml", "--config", saved))
    assert found["RichProgressBar"] == 1


@pytest.mark.slow
def test_a_run_goes_on_with_the_config_that_it_saved(cli, tmp_path):
    command = ("fit", "--config", "configs/fit.yaml", *SMALL, "--checkpoint.every_n_train_steps=1")
    cli(*command, "--saved_model.folder=mine", "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}")
    config = tmp_path / "lightning_logs" / "version_0" / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    assert settings["checkpoint"]["every_n_train_steps"] == 1
    assert {"ranker", "stopping"} <= settings["model"].keys() and "n_views" in settings["data"]  # hidden in its help
    cli("fit", "--config", config, "--trainer.max_steps=4", "--ckpt_path=last")
    found = sorted(path.name for path in tmp_path.rglob("*.ckpt"))
    assert found == ["epoch=0-step=4.ckpt", "last.ckpt"] and (tmp_path / "mine" / "model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lightning_logs", "mine"]
    # other commands read it too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cli.py"])
        assert "ExportModel" not in names(Made(args=["predict", "--config", str(config)]).trainer.callbacks)
