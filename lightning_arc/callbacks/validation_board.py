"""TensorBoard's charts of verdicts after a validation, and the first prompt of a training."""

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from scipy.special import expit

from lightning_arc.callbacks.images import log_picture, picture_loggers
from lightning_arc.data.batch import TreeBatch
from lightning_arc.model.typed import typed_model, typed_trainer
from lightning_arc.model.validation_metrics import VERDICTS, VERIFY_TAG
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import decoded
from lightning_arc.reporting.drawing import figure_to_array
from lightning_arc.reporting.validation import draw_reliability


class ValidationBoard(L.Callback):
    """Logs histograms of log-odds, a precision-recall curve and a reliability diagram after every validation."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log charts of the verdicts of all processes."""
        verdicts = typed_model(pl_module).metrics.samples.get(VERDICTS)
        if verdicts is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        log_odds, right, step = verdicts.values, verdicts.others == 1, trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, chosen in (("right", right), ("wrong", ~right)):
                    if chosen.any():
                        tag = f"val/{VERIFY_TAG}/log_odds_of_{name}_candidates"
                        logger.experiment.add_histogram(tag, log_odds[chosen], step)
                logger.experiment.add_pr_curve(f"val/{VERIFY_TAG}/precision_recall", right, expit(log_odds), step)
        if able := picture_loggers(trainer.loggers):
            picture = figure_to_array(draw_reliability(expit(log_odds), right))
            log_picture(able, f"val/{VERIFY_TAG}/reliability", picture, step)


class FirstPrompt(L.Callback):
    """Logs the first prompt that is trained on, as the model reads it, with one of its answers."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: TreeBatch, batch_idx: int
    ) -> None:
        """Log the prompt in the first step of a run."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.global_step or batch_idx or not loggers or not trainer.is_global_zero:
            return
        text = prompt_text(batch, typed_trainer(trainer).datamodule.prompt_encoder)
        indented = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown leaves such lines as they are
        for logger in loggers:
            logger.experiment.add_text("first prompt", indented, 0)


def prompt_text(batch: TreeBatch, prompt_encoder: PromptEncoder) -> str:
    """Return a batch's first prompt with its first answer."""
    pack = batch.packs[0]
    segment = pack.segments[0]
    tokens = pack.tokens[: segment.prefix + segment.branches[0]].long().cpu()
    if prompt_encoder.kept is not None:
        tokens = torch.from_numpy(prompt_encoder.kept).long()[tokens]
    return decoded(prompt_encoder.tokenizer, tokens.tolist())
