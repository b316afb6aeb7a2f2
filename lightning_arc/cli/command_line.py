"""The command line's additions to Lightning's: links between settings, defaults, and one-line errors."""

import sys
import warnings
from argparse import ArgumentError
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from transformers.utils.logging import disable_progress_bar

from lightning_arc.arc.io.outputs import check_folder
from lightning_arc.callbacks.hyper_parameters import HyperParameters
from lightning_arc.cli import LIGHTNING, program
from lightning_arc.cli.afterwards import print_afterwards
from lightning_arc.cli.callback_groups import GROUPS, add_groups, further_callbacks, saving_callbacks, use_typed
from lightning_arc.cli.checkpoint_path import (
    Chosen,
    choose_checkpoint,
    newest_checkpoint,
    remove_forgotten,
    version_to_continue,
)
from lightning_arc.cli.dry_run import add_options, dry_run
from lightning_arc.cli.help_page import CommandParser
from lightning_arc.cli.suggestions import explain
from lightning_arc.cli.trainer import SafeTrainer
from lightning_arc.data.module import ArcDataModule
from lightning_arc.errors import DataError
from lightning_arc.folders import find_configs
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.export import export, load_checkpoint
from lightning_arc.model.finite import check_finite
from lightning_arc.model.hyper_parameters import check_unchanged
from lightning_arc.model.load import Scratch
from lightning_arc.model.machine import fastest_precision
from lightning_arc.model.ttt import TestTimeTrainingConfig

COMPARED = ("max_steps", "max_epochs", "precision", "devices", "accumulate_grad_batches", "gradient_clip_val")
"""Settings of the trainer by which trainings are compared, beside all settings of the model and the data."""


class ArcTrainer(SafeTrainer):
    """A safe trainer, which also exports."""

    def export(
        self,
        model: ArcModel,
        datamodule: ArcDataModule,
        folder: str,
        ckpt_path: str | None = None,
        merge: bool = False,
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        """Write a trained model as other tools read it: an adapter that peft loads, or a model that transformers loads.

        Args:
            model: the settings of the model as it was trained.
            datamodule: the data; only its settings of how grids are written are used.
            folder: where it goes.
            ckpt_path: a checkpoint of its training; without one ``model.model_path`` is written as it is.
            merge: whether an adapter is merged into its base's weights, and the whole model written.
            dtype: type of the weights in the file; ``bfloat16`` takes half the space.
        """
        datamodule.setup("export")
        model.build(kept=datamodule.prompt_encoder.kept)
        if ckpt_path is not None:
            datamodule.load_state_dict(load_checkpoint(model, ckpt_path))
        check_finite(model.named_parameters(), ckpt_path or model.source)
        export(model, datamodule.prompt_encoder.tokenizer, folder, merge, getattr(torch, dtype))
        print(f"written to {folder}")


class ArcCLI(LightningCLI):
    """`LightningCLI` for one model and one data module.

    Args:
        command: the command that is run, whose parser alone is made; ``None`` for the parsers of all.
        kwargs: further arguments of `LightningCLI`.
    """

    def __init__(self, command: str | None = None, **kwargs: Any) -> None:
        self.command = command
        disable_progress_bar()
        super().__init__(
            ArcModel,
            ArcDataModule,
            trainer_class=ArcTrainer,
            parser_class=CommandParser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"precision": fastest_precision()},
            **kwargs,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that raises its errors instead of printing its usage, eighty lines long, before them."""
        return super().init_parser(**kwargs | {"exit_on_error": False})

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # the base calls it on an object only
        """Return the commands that have a parser, and for each the arguments that are not options."""
        skipped = LightningCLI.subcommands() | {"export": {"model", "datamodule"}}
        return {name: skipped[name] for name in LIGHTNING if self.command in (name, None)}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the model's and the data's options, and those of callbacks, before the trainer's."""
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(self._datamodule_class, "data")
        add_groups(parser)
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the data follow the model's path and the seed."""
        parser.link_arguments("model.model_path", "data.model_path")
        parser.link_arguments("model.trim_vocabulary", "data.trim_vocabulary")
        parser.link_arguments("model.test_time", "data.test_time_scope", compute_fn=_scope)
        parser.link_arguments("model.scratch", "data.positions", compute_fn=_positions)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Make a command's parser, whose help describes the command and shows only options that it uses."""
        parser = super()._prepare_subcommand_parser(
            klass, subcommand, **kwargs | {"description": LIGHTNING[subcommand]}
        )
        if subcommand != "export":  # all read a config of fit
            add_options(parser)
        assert isinstance(parser, CommandParser)  # as `ArcCLI` asks for
        parser.arrange(subcommand, program())
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse twice: first to find the checkpoint, then with the checkpoint's settings as the model's defaults.

        Typed options win over YAML files, these over the checkpoint, and the checkpoint over defaults.
        """
        self.chosen: Chosen | None = None
        self.version: int | str | None = None
        given = sys.argv[1:] if args is None else args
        words = find_configs([str(word) for word in given]) if isinstance(given, list) else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again, and settings are printed in the second round
            self._parse(parser, [word for word in words if not word.startswith("--print_config")] or given)
        command = self.config.get("subcommand")
        if command is None:
            return
        settings, saved = self.config[command], {}
        use_typed(settings, words)
        seed = settings.get("seed_everything")
        if not isinstance(seed, bool | None) and not 0 <= seed < 2**32:
            raise DataError(f"seed_everything: {seed}, expected 0 to {2**32 - 1}")
        root, folders = settings.trainer.default_root_dir, _dirpaths(settings)
        requested = settings.get("ckpt_path")
        self.chosen = choose_checkpoint(requested, root, command, folders)
        if self.chosen is not None:
            saved = self.chosen.settings
        elif command in ("validate", "predict"):
            saved = {"model_path": "bundled"}
        self._subcommand_parsers[command].set_defaults({f"model.{name}": value for name, value in saved.items()})
        self._parse(parser, words or given)
        settings = self.config[command]
        use_typed(settings, words)
        if "ckpt_path" in settings:
            settings.ckpt_path = None if self.chosen is None else self.chosen.path
        if self.chosen is not None:
            check_unchanged(saved, settings.model.as_dict(), self.chosen.path, training=command == "fit")
        if command == "fit" and self.chosen is not None:
            self._continue_version(settings, self.chosen)
        elif command == "fit" and not requested and not settings.dry_run:
            earlier = newest_checkpoint(root, folders)
            if earlier is not None:
                rank_zero_warn(
                    f"{earlier}: of an earlier run; this run is new, --ckpt_path last would continue that one"
                )

    def _parse(self, parser: LightningArgumentParser, given: list[str] | dict[str, Any] | Namespace) -> None:
        try:
            if isinstance(given, list):
                self.config = parser.parse_args(given)
            else:
                self.config = parser.parse_object(given)
        except ArgumentError as error:
            command = given[0] if isinstance(given, list) and given else ""
            raise DataError(explain(error, _types(self._subcommand_parsers.get(command)))) from error

    def _parse_ckpt_path(self) -> None:
        """Leave the settings as they are; Lightning would let the checkpoint's win over what was typed."""

    def _continue_version(self, settings: Namespace, chosen: Chosen) -> None:
        """Let a continued run log and save in the folder of its version, if its latest checkpoint is there."""
        if settings.trainer.logger in (None, True):
            self.version = version_to_continue(chosen, settings.trainer.default_root_dir)
        if self.version is not None:
            for saving in saving_callbacks(settings):
                saving.enable_version_counter = False  # checkpoints replace those of the same name

    @property
    def is_dry(self) -> bool:
        """Whether the command prints the cost of a training instead of training."""
        return self.subcommand == "fit" and self.config.fit.dry_run

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command, or print its cost in a dry run."""
        if not self.is_dry:
            super()._run_subcommand(subcommand)
            return
        dry_run(self.model, self.datamodule, self.config.fit.trainer, self.config.fit.dry_run_steps)

    def instantiate_trainer(self, **kwargs: Any) -> ArcTrainer | None:  # type: ignore[override]  # none in a dry run
        """Make the trainer, and end in good order at signals from then on. A continued run logs one curve.

        A dry run has no trainer, so that any machine can plan the training of a GPU.
        """
        if self.is_dry:
            return None
        if self.chosen is not None and self.version is not None:
            root = self.config.fit.trainer.default_root_dir or "."
            kwargs["logger"] = TensorBoardLogger(root, version=self.version, purge_step=self.chosen.step + 1)
        command = self.subcommand
        assert command is not None  # as `ArcCLI` runs one
        settings = self.config_init[command]
        given = settings.trainer.callbacks or []
        given = given if isinstance(given, list) else [given]
        groups = {name: settings[name] for name in GROUPS}
        kwargs["callbacks"] = further_callbacks(command, given, groups, self.config[command])
        if command == "fit":
            kwargs["callbacks"].append(HyperParameters(self._compared_settings()))
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except DataError:
            raise
        except ValueError as error:  # such as an accelerator that does not exist
            raise DataError(f"trainer: {error}") from error
        assert isinstance(trainer, ArcTrainer)  # as `ArcCLI` asks for
        trainer.interruption.listen()
        return trainer

    def _compared_settings(self) -> dict[str, Any]:
        """Return the settings that trainings are compared by."""
        settings = self.config.fit
        trainer = {name: settings.trainer[name] for name in COMPARED}
        return {
            "model": settings.model.as_dict(),
            "data": settings.data.as_dict(),
            "trainer": trainer,
            "seed_everything": settings.seed_everything,
        }

    def before_instantiate_classes(self) -> None:
        """Refuse an output folder that cannot be written to before anything is read."""
        settings = self.config[self.subcommand]
        if self.is_dry:
            return
        if self.subcommand == "export":
            check_folder(settings["folder"], "folder")
            return
        folder = settings["trainer"]["default_root_dir"]
        if folder is None and self.subcommand in ("fit", "predict"):
            folder = "."
        if folder is not None and "://" not in str(folder):  # a remote folder cannot be checked
            check_folder(folder, "trainer.default_root_dir")

    def before_fit(self) -> None:
        """Remove checkpoints that killed runs left in the folder of a continued run."""
        if self.chosen is None or self.version is None:
            return
        saving = saving_callbacks(self.config.fit)
        one_file = [each.save_top_k == 1 and each.monitor is None and each.dirpath is None for each in saving]
        if one_file == [True] and self.trainer.is_global_zero:
            remove_forgotten(self.chosen)

    def after_fit(self) -> None:
        """Print the written paths and the next command."""
        print_afterwards(self.trainer)


def _types(parser: LightningArgumentParser | None) -> dict[str, Any]:
    """Return the types of a command's options by their names."""
    actions = [] if parser is None else parser._actions
    return {
        word.removeprefix("--"): getattr(action, "_typehint", None)
        for action in actions
        for word in action.option_strings
        if word.startswith("--")
    }


def _positions(scratch: Namespace | Scratch | dict[str, Any] | None) -> str:
    """Return the positions of a model from scratch, whose settings a link gets in any of these forms."""
    settings = getattr(scratch, "init_args", scratch)
    settings = settings if isinstance(settings, dict) else vars(settings or Scratch())
    return settings.get("positions", Scratch().positions)


def _scope(test_time: Namespace | TestTimeTrainingConfig | dict[str, Any] | None) -> str | None:
    """Return the scope of test-time training, whose settings a link gets in any of these forms."""
    if test_time is None:
        return None
    settings = getattr(test_time, "init_args", test_time)
    settings = settings if isinstance(settings, dict) else vars(settings)
    return settings.get("scope", TestTimeTrainingConfig().scope)


def _dirpaths(settings: Namespace) -> list[str]:
    return [str(each.dirpath) for each in saving_callbacks(settings) if each.dirpath is not None]
