"""Validation episodes: what a model is asked while it trains, the same every time.

Knows sources and episodes. Knows nothing of prompts' texts, loaders or models.
"""

from dataclasses import replace

import numpy as np

from lightning_arc.arc.grid import DataError, same_grid
from lightning_arc.arc.task import Answer, Episode, PairKey
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.sampling import with_right_answer
from lightning_arc.sources import Source

MAX_ANSWERS = 16
"""Most candidates of a pair that are judged while a model trains."""


def validation_episodes(source: Source, seed: int) -> list[Episode]:
    """Make the validation episodes of a source, one per test input whose output is known.

    The answers are the candidates, up to sixteen in their order; where there is none, distractors. A right output that
    is not among them is added with no votes.
    """
    episodes = []
    for task in source.tasks:
        for i, pair in enumerate(task.tests):
            if pair.output is None:
                continue
            key = PairKey(task.id, "test", i)
            episode = Episode(key, task.demonstrations, pair.input, pair.output, (), task.code)
            candidates = source.pool[key][:MAX_ANSWERS]
            answers = tuple(
                Answer(c.grid, same_grid(c.grid, pair.output), j, c.votes) for j, c in enumerate(candidates)
            )
            if not answers:
                rng = np.random.default_rng([seed, len(episodes)])
                answers = tuple(
                    replace(a, votes=0) for a in with_right_answer(pair.output, draw_distractors(rng, episode, 4))
                )
            elif not any(a.correct for a in answers):
                answers = (*answers, Answer(pair.output, True, len(answers), votes=0))
            episodes.append(replace(episode, answers=answers))
    if not episodes:
        raise DataError("data.val_dataset: no test input with a known output is left to validate with")
    return episodes
