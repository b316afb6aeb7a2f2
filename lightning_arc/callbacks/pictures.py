"""Pictures of validation episodes: candidates in the verifier's order, the right one marked."""

from typing import Any

import lightning as L
import numpy as np
from scipy.special import expit

from lightning_arc.arc import Episode
from lightning_arc.callbacks.images import log_picture, picture_loggers
from lightning_arc.model.typed import typed_trainer
from lightning_arc.reporting.drawing import draw_episode, figure_to_array


class EpisodePictures(L.Callback):
    """Logs pictures of the first validation episodes after every validation.

    Args:
        n: number of episodes; 0 for none.
    """

    def __init__(self, n: int = 4) -> None:
        self.n = n
        self._verdicts: dict[int, np.ndarray] = {}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with no verdicts."""
        self._verdicts = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Keep the verdicts of the first episodes.

        ``outputs`` has a dict per tree: ``episode``, the place in ``ValidationData.episodes``; ``log_odds``, a float
        per branch; and ``answers``, which answer of the episode each branch is about.
        """
        for output in outputs or ():
            if len(self._verdicts) < self.n:
                log_odds = np.full(len(_episodes(trainer)[output["episode"]].answers), np.nan)
                log_odds[output["answers"].numpy()] = output["log_odds"].numpy()
                self._verdicts[output["episode"]] = expit(log_odds)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw and log the pictures."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        loggers = picture_loggers(trainer.loggers) if self._verdicts else []
        for i, p_correct in self._verdicts.items() if loggers else ():
            episode = _episodes(trainer)[i]
            picture = figure_to_array(draw_episode(episode, p_correct))
            name = f"val_episodes/{episode.key.task_id}-{episode.key.index}"
            log_picture(loggers, name, picture, trainer.global_step)


def _episodes(trainer: L.Trainer) -> list[Episode]:
    """Return the validation episodes."""
    validation = typed_trainer(trainer).datamodule.validation
    return [] if validation is None else validation.episodes
