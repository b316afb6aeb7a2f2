"""What the command line adds to Lightning's: links between settings, defaults, and errors of one line.

Knows Lightning's command line, the model and the data module. Knows nothing of what the commands do.
"""

import logging
import sys
import warnings
import zipfile
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from lightning_arc.arc.grid import DataError
from lightning_arc.callbacks.interruption import Stopped
from lightning_arc.data import ArcDataModule
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.export import export, load_checkpoint
from lightning_arc.model.finite import check_finite
from lightning_arc.trainer import SafeTrainer

SEARCHED = ("last", "best", "hpc", "registry")
"""What Lightning's `ckpt_path` may begin with instead of a file's name."""

NOISE = (
    ".*does not have many workers.*",
    ".*Found .* module.* in eval mode.*",
    ".*is_gradient_checkpointing.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*callbacks used to create the checkpoint need.*",  # ranking with a checkpoint needs none of those of its training
    ".*`IterableDataset` has `__len__` defined.*",  # ours counts only its own share
)


class ArcTrainer(SafeTrainer):
    """A safe trainer, which also exports."""

    def export(
        self, model: ArcModel, datamodule: ArcDataModule, folder: str, ckpt_path: str | None = None, merge: bool = False
    ) -> None:
        """Write a trained model as other tools read it: an adapter that peft loads, or a model that transformers loads.

        Args:
            model: the settings of the model as it was trained.
            datamodule: the data; of it only how grids are written counts.
            folder: where it goes.
            ckpt_path: a checkpoint of its training; without one ``model.model_path`` is written as it is.
            merge: whether an adapter is added to its base's weights, and the whole model written.
        """
        datamodule.setup("export")
        model.build(kept=datamodule.prompter.kept)
        if ckpt_path is not None:
            load_checkpoint(model, ckpt_path)
        check_finite(model.named_parameters(), ckpt_path or model.source)
        export(model, datamodule.prompter.tokenizer, folder, merge)
        Console().print(f"written to {folder}")


class ArcCLI(LightningCLI):
    """`LightningCLI` for one model and one data module."""

    def __init__(self, **kwargs: Any) -> None:
        precision = "bf16-mixed" if torch.cuda.is_available() else "32-true"
        super().__init__(
            ArcModel,
            ArcDataModule,
            trainer_class=ArcTrainer,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"precision": precision},
            **kwargs,
        )

    def instantiate_trainer(self, **kwargs: Any) -> ArcTrainer:
        """Make the trainer, and end in good order at signals from then on."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.interruption.listen()
        return trainer

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that raises its errors instead of printing its usage, eighty lines long, before them."""
        return super().init_parser(**kwargs | {"exit_on_error": False})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, and what of each is not set on the command line."""
        return LightningCLI.subcommands() | {"export": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the data follow the model's path and the seed."""
        parser.link_arguments("model.model_path", "data.model_path")
        parser.link_arguments("model.trim_vocabulary", "data.trim_vocabulary")
        parser.link_arguments("model.test_time", "data.lessons", compute_fn=lambda settings: settings is not None)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Refuse a checkpoint that is none before Lightning reads it."""
        super().parse_arguments(parser, args)
        command = self.config.get("subcommand")
        path = self.config[command].get("ckpt_path") if command else None
        if path is None or str(path).startswith(SEARCHED) or Path(path).is_dir():
            return
        if not Path(path).is_file():
            raise DataError(f"{path}: no such checkpoint (ckpt_path)")
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not a checkpoint, or only a part of one (ckpt_path)")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End in one line on standard error where a person gave something that is not as it must be, or a signal came.

    The status is 2 for an error, 130 for SIGINT (Ctrl-C) and 143 for SIGTERM.
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    warnings.showwarning = _one_line_warning
    disable_progress_bar()
    for package in ("pytorch", "fabric"):
        logger = logging.getLogger(f"lightning.{package}.utilities.rank_zero")
        logger.addFilter(lambda record: "Tip: " not in record.getMessage())
    try:
        yield
    except Stopped as stopped:
        if stopped.message is not None:
            sys.stderr.write(f"{stopped.message}\n")
        raise
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C\n")
        sys.exit(130)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)


def _message(error: BaseException) -> str | None:
    """Return what to tell about an error that a person made; ``None`` if it is one of this program."""
    cause: BaseException | None = error
    while cause is not None:  # jsonargparse wraps the errors of the classes that it makes
        if isinstance(cause, DataError):
            return _one_line(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return _one_line(error) if isinstance(error, (ArgumentError, MisconfigurationException)) else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    sys.stderr.write(f"warning: {message}\n")
