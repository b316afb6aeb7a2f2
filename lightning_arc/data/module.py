"""The data module: makes training, validation and prediction data from its options, as a stage needs them."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.loader import ResumableLoader
from lightning_arc.data.options import DataOptions
from lightning_arc.data.prediction import PredictionData
from lightning_arc.data.training import TrainingData
from lightning_arc.data.validation import ValidationData
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.prompt_settings import PromptSettings, remembered


class ArcDataModule(L.LightningDataModule):
    """Training, validation and prediction data.

    Args:
        options: those of `DataOptions`, by name.

    Attributes:
        options: all of them, checked.
        training: set up by ``fit``.
        validation: set up by ``fit`` and ``validate``, if there is a dataset for it.
        prediction: set up by ``predict``.

    Raises:
        DataError: names the invalid option.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = DataOptions(**options)
        self.prompts = PromptSettings.read(self.options)
        self._prompt_encoder: PromptEncoder | None = None
        self.training: TrainingData | None = None
        self.validation: ValidationData | None = None
        self.prediction: PredictionData | None = None

    @property
    def prompt_encoder(self) -> PromptEncoder:
        """The prompt encoder; once a checkpoint is loaded, it writes prompts as in the checkpoint's training.

        Raises:
            RuntimeError: before the data is set up.
        """
        if self._prompt_encoder is None:
            raise RuntimeError("the data module has not been set up")
        return self._prompt_encoder

    def setup(self, stage: str) -> None:
        """Read the data of a stage. A person's mistakes in it show here, before any model is loaded."""
        options, encoder = self.options, self.prompts.load(self.options)
        if encoder.by_turns:
            rank_zero_warn(
                f"{options.model_path}: the tokenizer needs whole turns at a time, so prompts are made slower"
            )
        if self.validation is None and (stage == "validate" or (stage == "fit" and options.val_dataset is not None)):
            self.validation = ValidationData(options, encoder)
        if self.training is None and stage == "fit":
            validated = [] if self.validation is None else self.validation.tasks
            self.training = TrainingData(options, encoder, validated, self.trainer)
        if stage == "predict":
            self.prediction = PredictionData(options, encoder)
        self._write_with(encoder)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of training batches."""
        assert self.training is not None  # as the stage is ``fit``
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self.training.loader(rank, world_size)

    def val_dataloader(self) -> DataLoader | list:
        """Return the loader of validation batches."""
        world_size = self.trainer.world_size if self.trainer else 1
        return [] if self.validation is None else self.validation.loader(world_size)

    def transfer_batch_to_device(self, batch: TreeBatch, device: torch.device, dataloader_idx: int) -> TreeBatch:
        """Move a batch without waiting for it."""
        return batch.to(device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: how prompts are written."""
        return {} if self._prompt_encoder is None else remembered(self._prompt_encoder)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Write prompts as the checkpoint's model learned them, unless the options say otherwise."""
        if self._prompt_encoder is not None and state:
            self._write_with(self.prompts.resumed(self.prompt_encoder, state))

    def _write_with(self, prompt_encoder: PromptEncoder) -> None:
        """Let all data be written by one encoder."""
        self._prompt_encoder = prompt_encoder
        if self.training is not None:
            self.training.sampler.prompt_encoder = prompt_encoder
        if self.validation is not None:
            self.validation.prompt_encoder = prompt_encoder
        if self.prediction is not None:
            self.prediction.prompt_encoder = prompt_encoder
