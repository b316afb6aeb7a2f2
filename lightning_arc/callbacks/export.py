"""Saves a trained model in the form in which it is loaded again: a Hugging Face folder, or a peft adapter's.

Knows the trained module. Knows nothing of training.
"""

from pathlib import Path

import lightning as L

from lightning_arc.model.export import export


class ExportModel(L.Callback):
    """Saves weights (or the adapter) as safetensors with the tokenizer when training ends.

    Args:
        folder: name of the folder in ``default_root_dir``.
        merge: whether an adapter is added to its base's weights, and the whole model saved.
    """

    def __init__(self, folder: str = "model", merge: bool = False) -> None:
        self.folder, self.merge = folder, merge

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save them, in the first process."""
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / self.folder
            export(pl_module, trainer.datamodule.prompter.tokenizer, path, self.merge)
