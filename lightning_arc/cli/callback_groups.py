"""A command's default callbacks: their options, and which of them a person's own callbacks replace."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib import import_module
from inspect import isclass
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from lightning_arc.callbacks.export import ExportModel
from lightning_arc.callbacks.pictures import EpisodePictures
from lightning_arc.callbacks.progress import TrainingProgress
from lightning_arc.callbacks.validation_board import FirstPrompt, ValidationBoard
from lightning_arc.errors import DataError


@dataclass(frozen=True)
class CallbackGroup:
    """A callback whose arguments are a group of options.

    Args:
        title: heading of its options in a command's help.
        callback: its class.
        commands: commands that have it. All commands take its options, so that each reads a config of another.
        replaced_by: a callback of this class among ``trainer.callbacks`` takes its place.
        defaults: defaults that differ from the class's.
        skip: arguments that are no options.
    """

    title: str
    callback: type[Callback]
    commands: Set[str]
    replaced_by: type[Callback]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    skip: Set[str] = frozenset()


GROUPS = {
    "checkpoint": CallbackGroup(
        "checkpoints",
        ModelCheckpoint,
        {"fit"},
        ModelCheckpoint,
        {"every_n_train_steps": 200, "save_last": True},
    ),
    "saved_model": CallbackGroup("the model that is saved when training ends", ExportModel, {"fit"}, ExportModel),
    "pictures": CallbackGroup("pictures of validation episodes", EpisodePictures, {"fit", "validate"}, EpisodePictures),
    "progress": CallbackGroup(
        "progress: a bar in a terminal, elsewhere a line every half minute",
        TrainingProgress,
        {"fit", "validate", "predict"},
        ProgressBar,
        skip={"console", "clock"},
    ),
}
"""The groups by the prefixes of their options."""

TRIGGERS = ("every_n_train_steps", "train_time_interval", "every_n_epochs")
"""Arguments of `ModelCheckpoint` of which at most one may be set."""


def add_groups(parser: LightningArgumentParser) -> None:
    """Add the options of all groups."""
    for name, group in GROUPS.items():
        parser.add_class_arguments(group.callback, name, fail_untyped=False, skip=set(group.skip), sub_configs=True)
        parser.set_defaults({f"{name}.{key}": value for key, value in group.defaults.items()})


def use_typed(settings: Namespace, words: Sequence[str]) -> None:
    """Let typed options of groups win over the same callback's arguments in ``trainer.callbacks``.

    Configs that earlier versions saved have these callbacks there.

    Args:
        settings: settings of a command, changed in place.
        words: words of the command line.

    Raises:
        DataError: if a config's value for a group is not a set of options.
    """
    for name, group in GROUPS.items():
        if not isinstance(settings[name], Namespace):
            raise DataError(f"{name} is {'null' if settings[name] is None else settings[name]}, expected its options")
        prefix = f"--{name}."
        names = [word.removeprefix(prefix).partition("=")[0] for word in words if word.startswith(prefix)]
        typed = {key for key in vars(settings[name]) if key.startswith(tuple(names))}  # names may be abbreviated
        for arguments in [*_listed(settings, group.replaced_by), settings[name]]:
            for key in typed & vars(arguments).keys():
                arguments[key] = settings[name][key]
            if name == "checkpoint":
                _keep_one_trigger(arguments, typed)


def saving_callbacks(settings: Namespace) -> list[Namespace]:
    """Return the arguments of the callbacks that save checkpoints."""
    if listed := _listed(settings, ModelCheckpoint):
        return [each for each in listed if "save_top_k" in each]  # a subclass may have other arguments
    return [] if settings.trainer.enable_checkpointing is False else [settings.checkpoint]


def further_callbacks(
    command: str, given: Sequence[Callback], groups: Mapping[str, Callback], settings: Namespace
) -> list[Callback]:
    """Return all callbacks of a command's trainer.

    Args:
        command: name of the command.
        given: the callbacks of ``trainer.callbacks``.
        groups: the groups' callbacks, by name.
        settings: settings of the command.

    Returns:
        The command's default callbacks that `given` does not replace, followed by `given`.
    """
    trainer = settings.trainer
    wanted = {
        "checkpoint": trainer.enable_checkpointing is not False and not trainer.barebones,
        "saved_model": settings.saved_model.folder is not None,
        "pictures": settings.pictures.n > 0,
        "progress": trainer.enable_progress_bar is not False and not trainer.barebones,
    }
    added = [
        groups[name]
        for name, group in GROUPS.items()
        if command in group.commands and wanted[name] and not _has(given, group.replaced_by)
    ]
    logs = trainer.logger not in (False, []) and not trainer.barebones
    wanted = {"fit": [LearningRateMonitor, FirstPrompt, ValidationBoard], "validate": [ValidationBoard]}
    added += [kind() for kind in wanted.get(command, ()) if logs and not _has(given, kind)]
    return [*added, *given]


def _has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(each, kind) for each in callbacks)


def _listed(settings: Namespace, kind: type[Callback]) -> list[Namespace]:
    """Return the arguments of the callbacks in ``trainer.callbacks`` that are of a class."""
    callbacks = settings.trainer.callbacks or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    return [each.init_args for each in callbacks if "init_args" in each and _is(each.class_path, kind)]


def _is(path: str, kind: type[Callback]) -> bool:
    module, _, name = path.rpartition(".")
    named = getattr(import_module(module), name)
    return isclass(named) and issubclass(named, kind)


def _keep_one_trigger(saving: Namespace, typed: Set[str]) -> None:
    """Keep one trigger of saving: typed ones win over others, and any set one wins over the default."""
    given = [key for key in TRIGGERS if saving.get(key) is not None]
    defaults = GROUPS["checkpoint"].defaults
    kept = [key for key in given if key in typed] or [key for key in given if saving[key] != defaults.get(key)]
    for key in given if kept else ():
        if key not in kept:
            saving[key] = None
