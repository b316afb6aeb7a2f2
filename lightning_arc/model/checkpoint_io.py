"""How checkpoints reach the disk: written beside their target, synchronised, and renamed."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol

from lightning_arc.arc.io.files import whole_file


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, also where the process is killed or the disk is full."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: what ``torch.save`` takes.
            path: a file; one that is there already is replaced. An address such as ``s3://…`` is left to Lightning.
            storage_options: not used.

        Raises:
            DataError: if the file cannot be written.
        """
        if storage_options is not None or not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole_file(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch hides the reason why its file cannot be written
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(Path(path).parent)


def _sync_folder(folder: Path) -> None:
    """Let a rename outlive a power cut; where the system does not open folders there is nothing to do."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
