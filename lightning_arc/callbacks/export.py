"""Saves a trained model in the form in which it is loaded again: a Hugging Face folder, or a peft adapter's.

Knows the trained module. Knows nothing of training.
"""

from pathlib import Path

import lightning as L


class ExportModel(L.Callback):
    """Saves weights (or the adapter) as safetensors with the tokenizer when training ends.

    Args:
        folder: name of the folder in ``default_root_dir``.
    """

    def __init__(self, folder: str = "model") -> None:
        self.folder = folder

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save them, in the first process."""
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / self.folder
            pl_module.model.save_pretrained(path, safe_serialization=True)
            trainer.datamodule.prompter.tokenizer.save_pretrained(path)
