"""Training samples: which episode, answers, augmentation and prompt belong to a number.

Knows tasks, pools, augmentation and prompts. Knows nothing of loaders, batches or models. A sample is a pure function
of a seed and an index: the same on any number of workers, and after any restart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lightning_arc.arc.candidate_files import read_candidates
from lightning_arc.arc.candidates import CandidatePool
from lightning_arc.arc.grid import DataError, Grid
from lightning_arc.arc.task import Answer, Episode, PairKey, Task
from lightning_arc.arc.tasks import read_tasks
from lightning_arc.augment.composition import DEFAULT_WEIGHTS, maybe_compose
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.augment.views import draw_view, swap_query
from lightning_arc.prompt.layouts import MAX_OPTIONS, PROMPTS
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tree import Kind, TokenTree

MAX_DRAWS = 200


@dataclass
class Dataset:
    """Tasks with what is done with them.

    Args:
        path: the tasks, in any form that `read_tasks` takes.
        prompts: names and versions of the prompts that are made of them, all equally often.
        candidates: files of candidates, whose wrong ones serve as wrong predictions.
        weight: how often samples are drawn from here, relative to the other datasets.
    """

    path: str
    prompts: list[str] = field(default_factory=lambda: ["verify-output-from-examples-v1"])
    candidates: list[str] = field(default_factory=list)
    weight: float = 1.0


@dataclass(frozen=True)
class Source:
    """A dataset that has been read."""

    tasks: tuple[Task, ...]
    pool: CandidatePool
    prompts: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn; see `ArcDataModule` for what each one is."""

    max_seq_len: int = 4096
    drop_demonstrations: bool = True
    learn_demonstrations: bool = False
    wrong_per_episode: int = 4
    distractor_probability: float = 0.25
    verify_correct_output_probability: float = 0.5
    compose_new_task_probability: float = 0.0
    compose_new_task_weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    keep_background_probability: float = 0.9
    pool_demonstrations: tuple[int, int] = (2, 5)


def read_source(dataset: Dataset) -> Source:
    """Read a dataset's tasks and candidates.

    Raises:
        DataError: names what is not as it must be.
    """
    for prompt in dataset.prompts:
        if prompt not in PROMPTS:
            raise DataError(
                f"{dataset.path}: prompt {prompt!r}: there is none of this name, there are {', '.join(PROMPTS)}"
            )
    if not dataset.prompts or dataset.weight <= 0:
        raise DataError(f"{dataset.path}: a dataset needs a prompt and a weight above 0")
    tasks = read_tasks(dataset.path)
    pool = read_candidates(dataset.candidates, tasks)
    return Source(tuple(tasks.values()), pool, tuple(dataset.prompts), dataset.weight)


def only(source: Source, kept: set[str]) -> Source:
    """Return a source with only the tasks whose ids are in ``kept``."""
    return replace(source, tasks=tuple(task for task in source.tasks if task.id in kept))


def fit_demonstrations(
    prompter: Prompter, episode: Episode, prompt: str, max_seq_len: int, drop: bool, **options: float | bool
) -> TokenTree | None:
    """Make an episode's token tree within a length.

    Args:
        prompter: makes the tree.
        episode: what to show.
        prompt: name and version.
        max_seq_len: most tokens of prefix and longest branch together.
        drop: whether demonstrations may be left out, the last ones first, as long as one remains.
        options: passed on to `Prompter.tree`.

    Returns:
        The tree, or ``None`` if it does not fit.
    """
    while True:
        tree = prompter.tree(episode, prompt, **options)
        if tree.longest <= max_seq_len:
            return tree
        if not drop or len(episode.demonstrations) < 2:
            return None
        episode = replace(episode, demonstrations=episode.demonstrations[:-1])


class Sampler:
    """Draws training samples.

    Args:
        sources: datasets that have been read.
        prompter: makes token trees.
        options: how samples are drawn.
        seed: with an index, says which sample it is.
    """

    def __init__(self, sources: Sequence[Source], prompter: Prompter, options: SamplingOptions, seed: int) -> None:
        self.sources, self.prompter, self.options, self.seed = tuple(sources), prompter, options, seed
        if any(not source.tasks for source in self.sources):
            raise DataError("train_datasets: a dataset has no task left to train with")
        weights = np.array([source.weight for source in self.sources], float)
        self._share = weights / weights.sum()

    def sample(self, index: int) -> tuple[TokenTree, int]:
        """Return the token tree of a number, and how many draws were too long before it.

        Raises:
            DataError: if none of many draws fits in ``max_seq_len``.
        """
        options = self.options
        for draw in range(MAX_DRAWS):
            episode, prompt = self.episode(index, draw)
            tree = fit_demonstrations(
                self.prompter,
                episode,
                prompt,
                options.max_seq_len,
                options.drop_demonstrations,
                right_share=options.verify_correct_output_probability,
                learn_demonstrations=options.learn_demonstrations,
            )
            if tree is not None:
                return tree, draw
        raise DataError(f"data.max_seq_len {options.max_seq_len}: none of {MAX_DRAWS} samples is that short")

    def episode(self, index: int, draw: int = 0) -> tuple[Episode, str]:
        """Return the augmented episode and the prompt of a number's ``draw``-th try."""
        rng = np.random.default_rng([self.seed, index, draw])
        source = self.sources[rng.choice(len(self.sources), p=self._share)]
        task = source.tasks[rng.integers(len(source.tasks))]
        prompt = source.prompts[rng.integers(len(source.prompts))]
        episode = self._query(rng, task)
        episode = self._answers(rng, episode, source.pool, PROMPTS[prompt])
        view = draw_view(
            rng, len(episode.demonstrations), keep_background_probability=self.options.keep_background_probability
        )
        # Its own source of randomness: with another probability all other draws stay what they were.
        own = np.random.default_rng([self.seed, index, draw, 1])
        options = self.options
        episode, _ = maybe_compose(own, episode, options.compose_new_task_probability, options.compose_new_task_weights)
        return view.apply(episode), prompt

    def _query(self, rng: np.random.Generator, task: Task) -> Episode:
        n = len(task.demonstrations)
        if task.is_pool:
            low, high = self.options.pool_demonstrations
            drawn = rng.choice(n, size=min(n, int(rng.integers(low, high + 1)) + 1), replace=False).tolist()
            return _leave_out(task, drawn[-1], drawn[:-1])
        tests = [i for i, pair in enumerate(task.tests) if pair.output is not None]
        if not tests:
            return _leave_out(task, i := int(rng.integers(n)), [j for j in range(n) if j != i])
        i = tests[rng.integers(len(tests))]
        episode = Episode(PairKey(task.id, "test", i), task.demonstrations, task.tests[i].input, task.tests[i].output)
        place = int(rng.integers(n + 1))
        return swap_query(episode, place, PairKey(task.id, "train", place)) if place < n else episode

    def _answers(self, rng: np.random.Generator, episode: Episode, pool: CandidatePool, kind: Kind) -> Episode:
        if kind not in (Kind.VERIFY_OUTPUT_FROM_EXAMPLES, Kind.SELECT_OUTPUT_FROM_EXAMPLES):
            return episode
        n = self.options.wrong_per_episode
        if kind is Kind.SELECT_OUTPUT_FROM_EXAMPLES:
            n = int(rng.integers(1, min(n, MAX_OPTIONS - 1) + 1))
        wrong = pool.wrong(episode.key, episode.output)
        n_pool = min(len(wrong), n - int(rng.binomial(n, self.options.distractor_probability)))
        grids = [wrong[i] for i in rng.choice(len(wrong), size=n_pool, replace=False)] if n_pool else []
        grids += draw_distractors(rng, episode, n - n_pool, exclude=grids)
        answers = with_right_answer(episode.output, grids)
        if kind is Kind.SELECT_OUTPUT_FROM_EXAMPLES:
            answers = tuple(answers[i] for i in rng.permutation(len(answers)))
        return replace(episode, answers=answers)


def with_right_answer(right: Grid, wrong: Sequence[Grid]) -> tuple[Answer, ...]:
    """Return the right output and wrong ones as answers."""
    return (Answer(right, True, 0), *(Answer(grid, False, i) for i, grid in enumerate(wrong, 1)))


def _leave_out(task: Task, i: int, shown: Sequence[int]) -> Episode:
    pair = task.demonstrations[i]
    demonstrations = tuple(task.demonstrations[j] for j in shown)
    return Episode(PairKey(task.id, "train", i), demonstrations, pair.input, pair.output)
