"""Lightning's objects as what they are here: callbacks are given a trainer and a module of no particular kind."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import lightning as L

if TYPE_CHECKING:
    from lightning_arc.data.module import ArcDataModule
    from lightning_arc.model.arc_model import ArcModel


class TypedTrainer(Protocol):
    """What a trainer has beside what Lightning declares: its connectors and `Divergence` set these."""

    callbacks: list[L.Callback]
    datamodule: "ArcDataModule"
    log_every_n_steps: int
    last_checkpoint: str | Path | None


def typed_trainer(trainer: L.Trainer) -> TypedTrainer:
    """Return a trainer as what has the attributes that Lightning does not declare."""
    return cast(TypedTrainer, trainer)


def typed_model(module: L.LightningModule) -> "ArcModel":
    """Return the module that a callback is given as the one that this project trains."""
    return cast("ArcModel", module)
