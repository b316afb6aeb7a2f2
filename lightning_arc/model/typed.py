"""Lightning's objects with this project's types: callbacks get a trainer and a module of general types."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import lightning as L

if TYPE_CHECKING:
    from lightning_arc.data.module import ArcDataModule
    from lightning_arc.model.arc_model import ArcModel


class TypedTrainer(Protocol):
    """Attributes of a trainer that Lightning does not declare; its connectors and `Divergence` set them."""

    callbacks: list[L.Callback]
    datamodule: "ArcDataModule"
    log_every_n_steps: int
    last_checkpoint: str | Path | None


def typed_trainer(trainer: L.Trainer) -> TypedTrainer:
    """Return a trainer typed with the attributes that Lightning does not declare."""
    return cast(TypedTrainer, trainer)


def typed_model(module: L.LightningModule) -> "ArcModel":
    """Return a callback's module typed as the `ArcModel` that it is."""
    return cast("ArcModel", module)
