"""What is typed wins over YAML files, they over the checkpoint, and the checkpoint over defaults."""

import inspect
import json
import sys
import typing

import pytest
import torch
import yaml

from lightning_arc.cli import command_line
from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.hyper_parameters import NOT_SAVED, SAVED, check_unchanged, saved_settings

VALUES = {  # in the checkpoint, in a YAML file, typed
    "model_path": ("checkpoint", "yaml", "typed"),
    "scratch": ({"layers": 1}, {"layers": 2}, {"layers": 3}),
    "lora": ({"r": 1}, {"r": 2}, {"r": 3}),
    "adapter_path": ("checkpoint", "yaml", "typed"),
    "quantize": ("4bit", None, "4bit"),
    "trim_vocabulary": (True, False, True),
    "attention": ("flex", "mask", "cascade"),
    "gradient_checkpointing": (True, False, True),
    "int8_products": (True, False, True),
    "compile": (True, False, True),
    "optimizer": ("paged_adamw_8bit", "adamw", "paged_adamw_8bit"),
    "learning_rate": (1.0, 2.0, 3.0),
    "weight_decay": (1.0, 2.0, 3.0),
    "betas": ([0.1, 0.1], [0.2, 0.2], [0.3, 0.3]),
    "schedule": ("linear", "constant", "cosine"),
    "warmup_steps": (1, 2, 3),
    "loss_weights": ({"a": 1.0}, {"b": 2.0}, {"c": 3.0}),
    "decoding": ({"n_samples": 1}, {"n_samples": 2}, {"n_samples": 3}),
    "ranker": (
        {"class_path": "lightning_arc.ranking.rankers.LogLinearRanker"},
        {"class_path": "lightning_arc.ranking.rankers.MajorityVote"},
        {"class_path": "lightning_arc.ranking.rankers.Likelihood"},
    ),
    "stopping": ({"max_views": 16}, {"max_views": 32}, {"max_views": 64}),
    "ensemble": (["checkpoint"], ["yaml"], ["typed"]),
    "test_time": ({"steps": 1}, {"steps": 2}, {"steps": 3}),
}
OPTIONS = [name for name in inspect.signature(ArcModel.__init__).parameters if name != "self"]
DEFAULTS = {name: inspect.signature(ArcModel.__init__).parameters[name].default for name in OPTIONS}


class Parsed(command_line.ArcCLI):
    """The command line, which parses and makes nothing."""

    def instantiate_classes(self):
        pass

    def _run_subcommand(self, subcommand):
        pass

    @property
    def settings(self) -> dict:
        return self.config[self.config.subcommand].model.as_dict()


def parse(*arguments) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cli.py", *map(str, arguments)])
        return Parsed().settings


def checkpoint(path, settings, **content):
    torch.save(
        {"state_dict": {}, "pytorch-lightning_version": "2.6.0", "hyper_parameters": settings, **content},
        path,
    )
    return path


def holds(value, wanted) -> bool:
    """Whether a setting is a value; of a group of settings, only those that it names."""
    if isinstance(wanted, dict) and isinstance(value, dict):
        return all(holds(value.get(name), wanted[name]) for name in wanted)
    return value == wanted or (isinstance(value, tuple) and list(value) == wanted)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory) -> dict[str, dict]:
    """All settings of the model, by the strongest word on them."""
    folder, patch = tmp_path_factory.mktemp("parsed"), pytest.MonkeyPatch()
    patch.setattr(command_line, "check_unchanged", lambda *_, **__: None)
    saved, of_file, typed = ({name: values[i] for name, values in VALUES.items()} for i in range(3))
    path = checkpoint(folder / "a.ckpt", saved)
    (folder / "a.yaml").write_text(yaml.safe_dump({"model": of_file}))
    words = [
        f"--model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in typed.items()
    ]
    given = ["predict", "--ckpt_path", path]
    found = {"default": parse("predict"), "checkpoint": parse(*given)}
    found["yaml"] = parse(*given, "--config", folder / "a.yaml")
    found["typed"] = parse(*given, "--config", folder / "a.yaml", *words)
    patch.undo()
    return found


def test_every_option_of_the_model_is_known_here_and_to_checkpoints():
    assert [*VALUES] == OPTIONS and sorted([*SAVED, *NOT_SAVED]) == sorted(OPTIONS)
    hints = typing.get_type_hints(ArcModel.__init__)
    assert {name: hints[name] for name in SAVED} == SAVED


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_typed_wins_over_yaml_and_yaml_over_the_checkpoint_and_it_over_defaults(parsed, name):
    saved, of_file, typed = VALUES[name]
    default = "bundled" if name == "model_path" else DEFAULTS[name]
    assert holds(parsed["default"][name], default) or parsed["default"][name] == list(default)
    assert holds(parsed["checkpoint"][name], saved if name in SAVED else DEFAULTS[name])
    assert holds(parsed["yaml"][name], of_file)
    assert holds(parsed["typed"][name], typed)


@pytest.fixture
def of(tmp_path):
    """A function that writes a checkpoint of given settings."""
    state = {"optimizer_states": [{}], "lr_schedulers": [{}], "loops": {"fit_loop": {}}}
    return lambda **settings: checkpoint(tmp_path / "a.ckpt", settings, **state)


SCRATCH = {"model_path": None, "scratch": {"hidden_size": 32, "heads": 2, "layers": 1}, "lora": None}
WHOLE = {"model_path": "BASE", "scratch": None, "lora": None, "adapter_path": None}
ADAPTER = {"model_path": "BASE", "scratch": None, "lora": {"r": 4, "alpha": 9}, "adapter_path": None}


def test_a_field_that_is_typed_leaves_the_other_fields_of_the_checkpoint(of, tmp_path):
    path = of(**ADAPTER, loss_weights={"output-from-examples": 2.0})
    lora = parse("fit", "--ckpt_path", path, "--model.lora.dropout=0.1")["lora"]
    assert (lora["r"], lora["alpha"], lora["dropout"]) == (4, 9, 0.1)
    (tmp_path / "a.yaml").write_text("model: {lora: {dropout: 0.5, alpha: 3}}")
    lora = parse("fit", "--ckpt_path", path, "--config", tmp_path / "a.yaml", "--model.lora.dropout=0.1")["lora"]
    assert (lora["r"], lora["alpha"], lora["dropout"]) == (4, 3, 0.1)


@pytest.mark.parametrize("config", ["rank", "generate", "validate"])
def test_a_shipped_config_takes_the_model_of_the_checkpoint_and_else_the_bundled_one(of, repo_root, config):
    command = ["validate" if config == "validate" else "predict", "--config", repo_root / f"configs/{config}.yaml"]
    assert parse(*command)["model_path"] == "bundled"
    settings = parse(*command, "--ckpt_path", of(**SCRATCH))
    assert settings["model_path"] is None and holds(settings["scratch"], SCRATCH["scratch"])


def test_a_base_that_lies_elsewhere_is_named_beside_the_checkpoint(of):
    settings = parse("predict", "--ckpt_path", of(**ADAPTER), "--model.model_path=ELSEWHERE")
    assert settings["model_path"] == "ELSEWHERE" and holds(settings["lora"], ADAPTER["lora"])


def test_training_has_no_model_that_nobody_named():
    assert parse("fit")["model_path"] is None


def test_an_adapters_rank_that_is_typed_is_refused_and_its_scale_is_taken(of):
    path = of(**ADAPTER)
    with pytest.raises(DataError, match=f"^model.lora.r is 8, {path} was trained with 4: it cannot change$"):
        parse("fit", "--ckpt_path", path, "--model.lora.r=8")
    assert parse("fit", "--ckpt_path", path, "--model.lora.alpha=1")["lora"]["alpha"] == 1


@pytest.mark.parametrize(
    ("saved", "typed", "message"),
    [
        (
            ADAPTER,
            {"lora": {"r": 4, "target_modules": ["q_proj"]}},
            "lora.target_modules is ['q_proj'], A trained with all",
        ),
        (ADAPTER, {"lora": {"r": 4, "use_dora": True}}, "lora.use_dora is True, A trained with False"),
        (ADAPTER, {"lora": {"r": 4, "init": "pissa"}}, "lora.init is pissa, A trained with default"),
        (ADAPTER, {"lora": None}, "lora is null, A trained with {'r': 4, 'alpha': 9}"),
        (ADAPTER, {"model_path": None}, "model_path is null, A trained with BASE"),
        (ADAPTER | {"quantize": "4bit"}, {"quantize": None}, "quantize is null, A trained with 4bit"),
        (ADAPTER | {"lora": None, "adapter_path": "B"}, {"adapter_path": None}, "lora is null, A trained with B"),
        (SCRATCH, {"scratch": SCRATCH["scratch"] | {"layers": 2}}, "scratch.layers is 2, A trained with 1"),
        (
            SCRATCH,
            {"scratch": SCRATCH["scratch"] | {"positions": "grid"}},
            "scratch.positions is grid, A trained with sequence",
        ),
        (SCRATCH, {"scratch": None}, "scratch.hidden_size is 192, A trained with 32"),
        (SCRATCH, {"model_path": "bundled"}, "model_path is bundled, A trained with null"),
        (SCRATCH, {"adapter_path": "FOLDER"}, "adapter_path is FOLDER, A trained with null"),
        (
            WHOLE | {"trim_vocabulary": True},
            {"trim_vocabulary": False},
            "trim_vocabulary is False, A trained with True",
        ),
        (SCRATCH, {"optimizer": "paged_adamw_8bit"}, "optimizer is paged_adamw_8bit, A trained with adamw"),
    ],
)
def test_what_cannot_change_is_refused_with_both_values(saved, typed, message):
    saved = {"optimizer": "adamw", **saved}
    check_unchanged(saved, DEFAULTS | saved, "A", training=True)
    with pytest.raises(DataError) as error:
        check_unchanged(saved, DEFAULTS | saved | typed, "A", training=True)
    assert str(error.value).startswith("model." + message.replace("A trained", "A was trained"))


@pytest.mark.parametrize(
    ("saved", "typed"),
    [
        (ADAPTER, {"lora": {"r": 4, "alpha": 1, "dropout": 0.1, "use_rslora": False}}),
        (ADAPTER, {"trim_vocabulary": True, "model_path": "ELSEWHERE"}),
        (ADAPTER, {"adapter_path": "FOLDER"}),
        (ADAPTER | {"lora": {"r": 4, "target_modules": ["a", "b"]}}, {"lora": {"r": 4, "target_modules": ["b", "a"]}}),
        (SCRATCH, {"scratch": SCRATCH["scratch"] | {"max_positions": 99}}),
        (WHOLE, {"model_path": "ELSEWHERE", "learning_rate": 9.0}),
        ({}, {"model_path": "ELSEWHERE"}),
    ],
)
def test_what_can_change_is_taken(saved, typed):
    check_unchanged(saved, DEFAULTS | saved | typed, "A", training=True)


def test_another_optimizer_is_refused_where_training_continues_only():
    saved, now = SCRATCH | {"optimizer": "paged_adamw_8bit"}, DEFAULTS | SCRATCH
    check_unchanged(saved, now, "A", training=False)
    with pytest.raises(DataError, match="model.optimizer is adamw"):
        check_unchanged(saved, now, "A", training=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scratch": {"class_path": "nothing_here.Size"}}, "hyper_parameters.scratch is {'class_path': 'nothing_here"),
        ({"lora": {"r": 4, "class_path": "nothing_here.Size"}}, "hyper_parameters.lora is"),
        ({"learning_rate": {"class_path": "nothing_here.Rate"}}, "hyper_parameters.learning_rate is"),
        ({"learning_rate": True}, "hyper_parameters.learning_rate is True"),
        ({"betas": [0.1]}, "hyper_parameters.betas is [0.1]"),
        ({"schedule": "nothing"}, "hyper_parameters.schedule is nothing"),
        ({"model_path": 3}, "hyper_parameters.model_path is 3"),
        ({"loss_weights": {"a": "b"}}, "hyper_parameters.loss_weights is {'a': 'b'}"),
    ],
)
def test_a_checkpoint_brings_plain_values_of_known_settings_only(settings, message):
    with pytest.raises(DataError) as error:
        saved_settings({"hyper_parameters": settings}, "a.ckpt")
    assert str(error.value).startswith(f"a.ckpt: {message}")


def test_what_a_checkpoint_names_beside_is_never_imported(of, tmp_path, monkeypatch):
    (tmp_path / "imported_by_a_checkpoint.py").write_text("raise SystemExit(9)")
    monkeypatch.syspath_prepend(tmp_path)
    name = "imported_by_a_checkpoint.Model"
    path = of(**SCRATCH, _class_path=name, _instantiator=name, ranker={"class_path": name}, callbacks=name)
    with pytest.warns(match="passed over _class_path, callbacks, no settings that a checkpoint brings"):
        assert parse("predict", "--ckpt_path", path)["ranker"] is None


def test_settings_are_printed_with_those_of_the_checkpoint(of, capsys):
    with pytest.raises(SystemExit):
        parse("predict", "--ckpt_path", of(**ADAPTER), "--print_config")
    assert yaml.safe_load(capsys.readouterr().out)["model"]["lora"]["r"] == 4
