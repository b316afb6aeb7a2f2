"""Pictures in every logger that accepts them."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.warnings import PossibleUserWarning

_refused: set[str] = set()


@runtime_checkable
class ImageLogger(Protocol):
    """A logger that accepts pictures as W&B's does."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None: ...


PictureLogger = TensorBoardLogger | ImageLogger


def picture_loggers(loggers: Sequence[Logger]) -> list[PictureLogger]:
    """Return the loggers that accept pictures; one line names those that do not, once."""
    able: list[PictureLogger] = [each for each in loggers if isinstance(each, PictureLogger)]
    for name in {type(each).__name__ for each in loggers if each not in able} - _refused:
        _refused.add(name)
        rank_zero_warn(f"{name} takes no pictures: none are logged to it", category=PossibleUserWarning)
    return able


def log_picture(loggers: Sequence[PictureLogger], name: str, picture: np.ndarray, step: int) -> None:
    """Log a picture.

    Args:
        loggers: those that `picture_loggers` returns.
        name: name of the picture.
        picture: ``(height, width, 3)`` ``uint8``.
        step: the global step.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")
        else:
            logger.log_image(name, [picture], step=step)
