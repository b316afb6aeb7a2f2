"""Validation data: episodes that a model is asked about while it trains, the same every time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from lightning_arc.arc.candidates import Candidate
from lightning_arc.arc.grid import same_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, PairKey
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.augment.views import key_seed
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.loader import collate
from lightning_arc.data.mixture import split
from lightning_arc.data.options import DataOptions
from lightning_arc.data.sampler import fit_demonstrations, with_right_answer
from lightning_arc.data.sources import Source, read_source
from lightning_arc.data.workers import follow_parent
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, MAX_OPTIONS, PROMPTS
from lightning_arc.prompt.tree import PromptKind, TokenTree
from lightning_arc.ranking.scores import CandidateScores

MAX_ANSWERS = 16
"""Most candidates of a pair that are judged while a model trains."""


class ValidationData:
    """Validation batches.

    Args:
        options: say which dataset is validated on.
        prompt_encoder: makes token trees.

    Attributes:
        tasks: those of the dataset that are held out.
        episodes: one per test input whose output is known.
        prompts: names and versions of the prompts that all of them are asked in.

    Raises:
        DataError: names the invalid input.
    """

    def __init__(self, options: DataOptions, prompt_encoder: PromptEncoder) -> None:
        if options.val_dataset is None:
            raise DataError("data.val_dataset: nothing to validate with")
        self.options, self.prompt_encoder = options, prompt_encoder
        source = read_source(options.val_dataset, options.oversized_tasks, in_memory=True)
        source = split(source, options.held_out_fraction, held_out=True)
        self.episodes, self.tasks = validation_episodes(source, options.seed), list(source.tasks)
        self.prompts = list(source.prompts)

    def tree(self, item: tuple[int, str]) -> tuple[TokenTree | None, dict[str, Any]]:
        """Make a tree and its info.

        Args:
            item: place of the episode, and the prompt.

        Returns:
            The tree, ``None`` if it is too long or the prompt does not apply to the episode, and its info.
        """
        i, prompt = item
        encoder, limit = self.prompt_encoder, self.options.max_seq_len
        episode = episode_for_prompt(self.episodes[i], prompt, self.options.seed)
        tree = None if episode is None else fit_demonstrations(encoder, episode, prompt, limit, drop=True)
        ranks = next((p for p in self.prompts if PROMPTS[p] is PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES), None)
        return tree, {"episode": i, "evidence": without_scores(self.episodes[i]) if prompt == ranks else None}

    def batch(self, items: Sequence[tuple[int, str] | None]) -> TreeBatch:
        """Make a batch of the trees that are not too long; ``None`` stands for no tree."""
        asked = [self.tree(item) for item in items if item is not None]
        made = [(tree, info) for tree, info in asked if tree is not None]
        return collate([tree for tree, _ in made], self.prompt_encoder, self.options, [info for _, info in made])

    def loader(self, world_size: int = 1) -> DataLoader:
        """Return the loader, of every episode in every prompt that applies to it.

        Lightning divides the items among the processes, and gives some items to two of them where the number does not
        divide; here ``None`` makes up the number, so that each tree is measured once.
        """
        items: list[tuple[int, str] | None] = [
            (i, prompt)
            for prompt in self.prompts
            for i, episode in enumerate(self.episodes)
            if episode_for_prompt(episode, prompt, self.options.seed) is not None
        ]
        items += [None] * (-len(items) % world_size)
        size, n = self.options.batch_size, self.options.num_workers
        # torch takes any sequence
        return DataLoader(items, size, collate_fn=self.batch, num_workers=n, worker_init_fn=follow_parent)  # type: ignore[arg-type]


def validation_episodes(source: Source, seed: int) -> list[Episode]:
    """Make the validation episodes of a source, one per test input whose output is known.

    The answers are the candidates, up to sixteen in their order; where there is none, distractors. A right output that
    is not among them is added with no votes.
    """
    episodes: list[Episode] = []
    for task in source.tasks:
        for i, pair in enumerate(task.tests):
            if pair.output is None:
                continue
            key = PairKey(task.id, "test", i)
            episode = Episode(key, task.demonstrations, pair.input, pair.output, (), task.code)
            candidates = source.pool[key][:MAX_ANSWERS]
            answers = tuple(
                LabeledCandidate(c.grid, same_grid(c.grid, pair.output), j, c.votes) for j, c in enumerate(candidates)
            )
            if not answers:
                rng = np.random.default_rng([seed, len(episodes)])
                answers = tuple(
                    replace(a, votes=0) for a in with_right_answer(pair.output, draw_distractors(rng, episode, 4))
                )
            elif not any(a.correct for a in answers):
                answers = (*answers, LabeledCandidate(pair.output, True, len(answers), votes=0))
            episodes.append(replace(episode, answers=answers))
    if not episodes:
        raise DataError("data.val_dataset: no test input with a known output is left to validate with")
    return episodes


def without_scores(episode: Episode) -> CandidateScores | None:
    """Return the candidates of a validation episode, not scored yet; ``None`` if it has none.

    These are its answers with votes, which come first; a right output that was added, or a distractor, is not ranked.
    """
    voted = [answer for answer in episode.answers if answer.votes > 0]
    candidates = tuple(Candidate(answer.grid, answer.votes) for answer in voted)
    return CandidateScores(episode.key, candidates, [bool(answer.correct) for answer in voted]) if voted else None


def episode_for_prompt(episode: Episode, prompt: str, seed: int) -> Episode | None:
    """Return a validation episode in the form that a prompt needs, ``None`` if the prompt does not apply to it.

    A selection prompt gets the right output and as many wrong ones as fit, in an order drawn by ``seed``. A code prompt
    needs a program.
    """
    kind = PROMPTS[prompt]
    if kind in FROM_CODE:
        return None if episode.code is None else episode
    if kind is not PromptKind.SELECT_OUTPUT_FROM_EXAMPLES:
        return episode
    right, wrong = ([a for a in episode.answers if a.correct is value] for value in (True, False))
    options = [*right[:1], *wrong[: MAX_OPTIONS - 1]]
    order = np.random.default_rng([seed, key_seed(episode.key)]).permutation(len(options))
    return replace(episode, answers=tuple(options[i] for i in order)) if wrong else None
