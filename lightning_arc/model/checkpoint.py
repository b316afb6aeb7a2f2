"""Checkpoints: reading one from an untrusted file, and whether one belongs to a model."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor

from lightning_arc.errors import DataError, first_line
from lightning_arc.model.base_name import check_base

CHUNK = 1 << 20
"""Bytes that are read at a time to verify a file."""

TRAINING_STATE = {"loops": dict, "optimizer_states": list, "lr_schedulers": list}
"""Keys of a checkpoint that continued training needs besides weights."""


def read_checkpoint(path: str | Path, option: str = "ckpt_path", mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint, after every byte of it has been compared to the file's checksums. No code in it is run.

    Args:
        path: the file.
        option: the setting that names it, for messages.
        mmap: whether weights stay on disk until they are used.

    Raises:
        DataError: if it is none, is torn or damaged, or holds something other than weights and plain settings.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such checkpoint ({option})")
    _verify(path, option)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch fails in many ways on files from elsewhere
        named = re.search(r"GLOBAL (\S+)", str(error))
        held = f"something other than weights and plain settings ({named[1]})" if named else "no weights"
        raise DataError(f"{path}: not a checkpoint, it holds {held} ({option})") from error
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise DataError(f"{path}: no checkpoint of a training, it has no state_dict of weights ({option})")
    return checkpoint


def is_archive(path: str | Path) -> bool:
    """Whether a file begins as a checkpoint does."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _verify(path: str | Path, option: str) -> None:
    """Compare every member of a zip archive to its checksum, in chunks."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise DataError(f"{path}: not a checkpoint, {member.filename[:80]} is compressed ({option})")
                with archive.open(member) as file:
                    while file.read(CHUNK):
                        pass
    except DataError:
        raise
    except Exception as error:  # a damaged directory of members leads to errors of many kinds
        if isinstance(error, OSError) and error.filename is not None:
            raise
        torn = str(error) == "File is not a zip file"
        kind = "not a checkpoint, or only a part of one" if torn else f"damaged checkpoint, {first_line(error)}"
        raise DataError(f"{path}: {kind} ({option})") from error


def check_state(checkpoint: Mapping[str, Any], path: str, training: bool) -> None:
    """Refuse a checkpoint that Lightning cannot read, or cannot continue training from.

    Raises:
        DataError: names what it lacks.
    """
    try:
        Version(checkpoint["pytorch-lightning_version"])
    except (InvalidVersion, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a checkpoint of Lightning, it has no pytorch-lightning_version") from error
    for name, kind in TRAINING_STATE.items() if training else ():
        if not isinstance(checkpoint.get(name), kind) or not checkpoint[name]:
            raise DataError(f"{path}: training cannot continue from it, it has no {name} (ckpt_path)")


def check_checkpoint(
    checkpoint: dict[str, Any],
    base: Mapping[str, Any] | None,
    kept: list[int] | None,
    trained: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> None:
    """Refuse a checkpoint that belongs to another model.

    Args:
        checkpoint: what was saved.
        base: name of the base of the model's adapter, see `name_of_base`; ``None`` where all weights are trained.
        kept: tokens that the model keeps, ``None`` for all.
        trained: the weights that are trained, by name.
        weights: all weights, by name.

    Raises:
        DataError: if it belongs to another model, or lacks weights that it must hold.
    """
    own, saved = checkpoint.get("base"), checkpoint["state_dict"]
    if bool(own) != (base is not None):
        kind = "an adapter" if own else "all weights"
        raise DataError(f"the checkpoint holds {kind}, the settings of the model say otherwise (model.lora)")
    if base is not None:
        check_base(own, base, "the checkpoint")
    elif checkpoint.get("kept_tokens") != kept:
        raise DataError("model.trim_vocabulary: the checkpoint was trained with other tokens than these settings keep")
    missing = {*trained} - {*saved}
    if missing:
        raise DataError(f"the checkpoint lacks {len(missing)} weights of the model, {min(missing)} among them")
    unknown = {*saved} - {*weights}
    if unknown:
        raise DataError(f"the model lacks {len(unknown)} weights of the checkpoint, {min(unknown)[:80]} among them")
    option = "model.lora" if own else "model.model_path or model.scratch"
    for name, weight in saved.items():
        if weight.shape != weights[name].shape:
            shapes = f"{list(weight.shape)}, the model's {list(weights[name].shape)}"
            raise DataError(f"{option}: the checkpoint's {name} is {shapes}")
