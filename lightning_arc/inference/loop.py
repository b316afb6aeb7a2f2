"""Prediction as one loop: take the next batch, score it or write answers, keep the records in the journal."""

import math

import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loops.prediction_loop import _PredictionLoop
from lightning.pytorch.trainer import call

from lightning_arc.errors import Stopped
from lightning_arc.inference.generation import Generation
from lightning_arc.inference.progress import PredictionProgress
from lightning_arc.inference.ranking import CandidateRanking
from lightning_arc.inference.work import PredictionWork
from lightning_arc.model.typed import typed_model, typed_trainer


class PredictionLoop(_PredictionLoop):
    """Lightning's prediction without a loader, which would fetch the next batch before the last one is answered.

    Callbacks are called for each batch as Lightning calls them. Inference mode is not used, because its tensors could
    not be used in test-time training. ``trainer.limit_predict_batches`` must be a number of batches to have an effect.
    """

    def run(self) -> None:
        """Do the remaining work and write the results; at a signal, write the results so far."""
        trainer = self.trainer
        self.max_batches = [math.inf]
        with torch.no_grad():
            self._on_predict_model_eval()
            self._on_predict_start()
            self._on_predict_epoch_start()
            data = typed_trainer(trainer).datamodule.prediction
            assert data is not None  # as the stage is ``predict``
            kind = Generation if data.options.generate else CandidateRanking
            work = kind(trainer, typed_model(trainer.lightning_module), data)
            try:
                work.prepare()
                with PredictionProgress(work, shown=self._shows_progress) as progress:
                    self._do(work, progress)
            except Stopped:
                work.finish()
                raise
            finally:
                work.close()
            trainer.strategy.barrier()
            work.finish()
            self.return_predictions = False  # the journal has them
            self._on_predict_epoch_end()
            self._on_predict_end()
            self._on_predict_model_train()

    @property
    def _shows_progress(self) -> bool:
        return self.trainer.is_global_zero and self.trainer.progress_bar_callback is not None

    def _do(self, work: PredictionWork, progress: PredictionProgress) -> None:
        trainer, limit = self.trainer, self.trainer.limit_predict_batches
        most = limit if isinstance(limit, int) else math.inf
        for number, batch in enumerate(work.batches()):
            if number >= most:
                break
            self._call("on_predict_batch_start", batch, number)
            with trainer.precision_plugin.predict_step_context():
                records = work.step(batch)
            for record in records:
                work.keep(record)
            progress.update(records)
            self._call("on_predict_batch_end", records, batch, number)

    def _call(self, hook: str, *given: object) -> None:
        """Call a hook of all callbacks except progress bars, which would need to know the number of batches."""
        for callback in typed_trainer(self.trainer).callbacks:
            if not isinstance(callback, ProgressBar):
                getattr(callback, hook)(self.trainer, self.trainer.lightning_module, *given)
        call._call_lightning_module_hook(self.trainer, hook, *given)
