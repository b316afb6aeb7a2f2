"""The tokens that prompts can hold, which are few of a large vocabulary."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.grid import MAX_SIDE, N_COLOURS
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, MAX_OPTIONS, PROMPTS

SIDES = (1, 2, 10, MAX_SIDE)
"""Grid sides in the sample prompts that give the tokens around grids; grids of all shapes are also written alone."""


def prompt_vocabulary(prompt_encoder: PromptEncoder) -> NDArray[np.int32]:
    """Return the token ids that grids of every shape and prompts of every kind but those of code are made of.

    Args:
        prompt_encoder: of the whole vocabulary.

    Returns:
        ``(K,)`` ids, sorted.
    """
    colours = np.arange(N_COLOURS, dtype=np.int8)
    grids = [np.resize(colours, shape) for shape in product(SIDES, SIDES)]
    found = {prompt_encoder.end_id, prompt_encoder.yes_id, prompt_encoder.no_id, *prompt_encoder.choice_ids}
    for shape in product(range(1, MAX_SIDE + 1), repeat=2):
        found.update(prompt_encoder.write(np.resize(colours, shape)).tolist())
    for i, grid in enumerate(grids):
        other = grids[(i + 1) % len(grids)]
        pairs = tuple(Pair(grid, other) for _ in range(1 + i % MAX_OPTIONS))
        answers = tuple(
            LabeledCandidate(g, n == 0, n) for n, g in enumerate([grid, *grids][: 2 + i % (MAX_OPTIONS - 1)])
        )
        episode = Episode(PairKey("vocabulary", "test", 0), pairs, other, grid, answers)
        for prompt, kind in PROMPTS.items():
            if kind not in FROM_CODE:
                tree = prompt_encoder.tree(episode, prompt)
                for n in range(len(tree.branches)):
                    found.update(tree.sequence(n).tolist())
    return np.array(sorted(found), np.int32)
