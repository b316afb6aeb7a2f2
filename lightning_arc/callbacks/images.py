"""Pictures in any logger that takes them."""

from collections.abc import Sequence

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.warnings import PossibleUserWarning

_refused: set[str] = set()


def picture_loggers(loggers: Sequence[Logger]) -> list[Logger]:
    """Return the loggers that take pictures; a line says once which do not."""
    able = [each for each in loggers if isinstance(each, TensorBoardLogger) or hasattr(each, "log_image")]
    for name in {type(each).__name__ for each in loggers if each not in able} - _refused:
        _refused.add(name)
        rank_zero_warn(f"{name} takes no pictures: none are logged to it", category=PossibleUserWarning)
    return able


def log_picture(loggers: Sequence[Logger], name: str, picture: np.ndarray, step: int) -> None:
    """Log a picture.

    Args:
        loggers: those that `picture_loggers` returns.
        name: of the picture.
        picture: ``(height, width, 3)`` ``uint8``.
        step: the global step.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")
        else:  # W&B's name and arguments, which others have too
            logger.log_image(name, [picture], step=step)
