"""Checkpoints: whether one belongs to a model.

Knows what a checkpoint holds. Knows nothing of how it is read, of models or of training.
"""

from collections.abc import Collection
from typing import Any

from lightning_arc.arc.grid import DataError


def check_checkpoint(
    checkpoint: dict[str, Any],
    model_path: str | None,
    base: str | None,
    kept: list[int] | None,
    wanted: Collection[str],
) -> None:
    """Refuse a checkpoint that belongs to another model.

    Args:
        checkpoint: what was saved.
        model_path: where the model came from.
        base: fingerprint of the base of the model's adapter, ``None`` where all weights are trained.
        kept: tokens that the model keeps, ``None`` for all.
        wanted: names of the weights that are trained.

    Raises:
        DataError: if it does, or lacks some of the weights that it must hold.
    """
    own = checkpoint.get("base")
    if bool(own) != (base is not None):
        kind = "an adapter" if own else "all weights"
        raise DataError(f"the checkpoint holds {kind}, the settings of the model say otherwise (model.lora)")
    if own and own["fingerprint"] != base:
        raise DataError(
            f"model.model_path: the checkpoint belongs to {own['model_path']} ({own['fingerprint']}), "
            f"this is {model_path} ({base})"
        )
    if not own and checkpoint.get("kept_tokens") != kept:
        raise DataError("model.trim_vocabulary: the checkpoint was trained with other tokens than these settings keep")
    missing = {*wanted} - {*checkpoint["state_dict"]}
    if missing:
        raise DataError(f"the checkpoint lacks {len(missing)} weights of the model, {min(missing)} among them")
