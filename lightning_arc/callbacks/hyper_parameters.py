"""The settings of a run in TensorBoard's HParams tab, beside the latest values of its main metrics."""

from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from lightning_arc.model.validation_metrics import VERIFY_TAG, WRITE_TAG

MAIN_FIGURES = (
    "train/loss",
    f"val/{VERIFY_TAG}/loss",
    f"val/{VERIFY_TAG}/auroc",
    f"val/{VERIFY_TAG}/accuracy",
    f"val/{WRITE_TAG}/loss",
    f"val/{WRITE_TAG}/token_accuracy",
    f"val/{WRITE_TAG}/exact_match",
    *(f"val/ranking/{method}_top{k}" for method in ("vote", "verifier", "likelihood") for k in (1, 2)),
    "usage/tokens_per_second",
)
"""The metrics that runs are compared by. TensorBoard shows those that a run has logged."""


class HyperParameters(L.Callback):
    """Logs the settings of a run when training starts, so that runs can be compared.

    TensorBoard takes the last value of each of the `MAIN_FIGURES` by itself, so that an interrupted run is compared
    too. Other loggers get the settings by their ``log_hyperparams``.

    Args:
        settings: settings of the run, nested.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(_flat(settings))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop Lightning from logging its own ``hp_metric``, which is always -1."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger._default_hp_metric = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the settings."""
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for summary in hparams(self.settings, dict.fromkeys(MAIN_FIGURES)):
                    logger.experiment._get_file_writer().add_summary(summary)
            else:
                logger.log_hyperparams(self.settings)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield settings by names with dots; lists as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            number = isinstance(value, (bool, int, float))
            yield f"{prefix}{name}", value if number else "null" if value is None else str(value)
