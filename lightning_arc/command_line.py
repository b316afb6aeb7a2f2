"""What the command line adds to Lightning's: links between settings, defaults, and errors of one line.

Knows Lightning's command line. Knows nothing of what the commands do.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_arc.arc.grid import DataError


class ArcCLI(LightningCLI):
    """`LightningCLI` for one model and one data module."""

    def __init__(self, model_class: type, datamodule_class: type, **kwargs: Any) -> None:
        precision = "bf16-mixed" if torch.cuda.is_available() else "32-true"
        super().__init__(
            model_class,
            datamodule_class,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"precision": precision},
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the data follow the model's path and the seed."""
        parser.link_arguments("model.model_path", "data.model_path")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End with status 2 and one line on standard error where a person gave something that is not as it must be."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Found .* module.* in eval mode.*")
    warnings.filterwarnings("ignore", message=".*`litlogger`.*|.*litmodels.*")
    warnings.showwarning = _one_line_warning
    try:
        yield
    except (DataError, MisconfigurationException) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    sys.stderr.write(f"warning: {message}\n")
