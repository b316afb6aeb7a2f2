"""Saves a trained model as a folder that transformers loads, or an adapter as one that peft loads."""

from itertools import count
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from lightning_arc.model.export import export, holds_other
from lightning_arc.model.typed import typed_model, typed_trainer


class ExportModel(L.Callback):
    """Saves weights (or the adapter) as safetensors with the tokenizer when training ends.

    Args:
        folder: name of the folder in ``default_root_dir``; ``null`` saves none.
        merge: whether an adapter is merged into its base's weights, and the whole model saved.
    """

    def __init__(self, folder: str | None = "model", merge: bool = False) -> None:
        self.folder, self.merge = folder, merge

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the model, in the first process.

        What another run saved there, or the other one of adapter and whole model, is kept under another name.
        """
        if self.folder is None or not trainer.is_global_zero:
            return
        root = Path(trainer.default_root_dir)
        path, module = root / self.folder, typed_model(pl_module)
        continues = trainer.ckpt_path is not None and root.absolute() in Path(trainer.ckpt_path).absolute().parents
        if path.exists() and (not continues or holds_other(module, path, self.merge)):
            kept = next(name for n in count(1) if not (name := root / f"{self.folder}-{n}").exists())
            path.rename(kept)
            rank_zero_info(f"{path}: the model of an earlier run is now {kept}")
        export(module, typed_trainer(trainer).datamodule.prompt_encoder.tokenizer, path, self.merge)
