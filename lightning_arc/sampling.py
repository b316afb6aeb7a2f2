"""Training samples: which episode, answers, augmentation and prompt belong to a number.

Knows tasks, pools, augmentation and prompts. Knows nothing of loaders, batches or models. A sample is a pure function
of a seed and an index: the same on any number of workers, and after any restart.
"""

import hashlib
import warnings
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.candidate_files import open_pool
from lightning_arc.arc.candidates import CandidatePool
from lightning_arc.arc.grid import DataError, Grid
from lightning_arc.arc.pool_file import PoolFile
from lightning_arc.arc.task import Answer, Episode, PairKey, Task
from lightning_arc.arc.tasks import read_tasks
from lightning_arc.augment.composition import DEFAULT_WEIGHTS, maybe_compose
from lightning_arc.augment.distractors import DEFAULT_WEIGHTS as DISTRACTOR_WEIGHTS
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.augment.views import draw_view, swap_query
from lightning_arc.augment.weights import shares
from lightning_arc.prompt.layouts import FROM_CODE, MAX_OPTIONS, PROMPTS
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tree import Kind, TokenTree

MAX_DRAWS = 200


@dataclass
class Dataset:
    """Tasks with what is done with them.

    Args:
        path: the tasks, in any form that `read_tasks` takes.
        prompts: names and versions of the prompts that are made of them, all equally often; or a weight for each.
            Prompts that need a task's code are drawn for the tasks that have some.
        candidates: files of candidates, whose wrong ones serve as wrong predictions.
        weight: how often samples are drawn from here, relative to the other datasets, however many tasks they have.
        ratio: share of the tasks that is used, drawn by their ids.
    """

    path: str
    prompts: list[str] | dict[str, float] = field(default_factory=lambda: ["verify-output-from-examples-v1"])
    candidates: list[str] = field(default_factory=list)
    weight: float = 1.0
    ratio: float = 1.0


class SampleWarning(UserWarning):
    """A sample was passed over because its task is not valid."""


class TaskList(Sequence[Task]):
    """Some tasks of a mapping by their place; they are looked up, and so perhaps read, when they are asked for."""

    def __init__(self, tasks: Mapping[str, Task], ids: Sequence[str]) -> None:
        self._tasks, self.ids = tasks, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Task:
        return self._tasks[self.ids[place]]

    def valid(self) -> Iterator[Task]:
        """Iterate over the tasks; those that are read now and are not valid are passed over, as in sampling."""
        for place in range(len(self)):
            with suppress(DataError):
                yield self[place]

    def only(self, keeps: Callable[[str], bool]) -> "TaskList":
        """Return those whose ids are to be kept."""
        return TaskList(self._tasks, [task_id for task_id in self.ids if keeps(task_id)])


@dataclass(frozen=True)
class Source:
    """A dataset that has been read.

    Args:
        tasks: its tasks.
        pool: candidates of their pairs.
        prompts: names and versions of its prompts.
        shares: ``(prompts,)`` how often each is drawn, sum 1.
        weight: how often samples are drawn from here, relative to others.
    """

    tasks: TaskList
    pool: CandidatePool | PoolFile
    prompts: tuple[str, ...]
    shares: NDArray[np.float64]
    weight: float


@dataclass(frozen=True)
class Sample:
    """A training sample.

    Args:
        tree: its token tree.
        skipped: how many draws were too long before it.
        composition: family of the task composition, ``None`` where the task is as it was.
    """

    tree: TokenTree
    skipped: int
    composition: str | None


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn; see `ArcDataModule` for what each one is."""

    max_seq_len: int = 4096
    drop_demonstrations: bool = True
    learn_demonstrations: bool = False
    wrong_per_episode: int = 4
    distractor_probability: float = 0.25
    distractor_weights: Mapping[str, float] = field(default_factory=lambda: dict(DISTRACTOR_WEIGHTS))
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
    where, prompts = dataset.path, dataset.prompts
    weights = prompts if isinstance(prompts, Mapping) else dict.fromkeys(prompts, 1.0)
    names, probabilities = shares(weights, PROMPTS, f"{where}: prompts")
    if not names or not 0 < dataset.weight < float("inf"):
        raise DataError(f"{where}: a dataset needs a prompt and a weight above 0")
    if not 0 < dataset.ratio <= 1:
        raise DataError(f"{where}: ratio is {dataset.ratio}, expected more than 0 and at most 1")
    tasks = read_tasks(where)
    pool = open_pool(dataset.candidates, tasks)
    source = Source(TaskList(tasks, list(tasks)), pool, tuple(names), probabilities, dataset.weight)
    if dataset.ratio < 1:
        source = only(source, lambda task_id: id_share(f"ratio {task_id}") < dataset.ratio)
    return source


def only(source: Source, keeps: Callable[[str], bool]) -> Source:
    """Return a source with only the tasks whose ids are to be kept."""
    return replace(source, tasks=source.tasks.only(keeps))


def id_share(name: str) -> float:
    """Return a number from 0 to 1 that is the same for a name wherever it comes from."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32


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
        if not all(len(source.tasks) for source in self.sources):
            raise DataError("train_datasets: a dataset has no task left to train with")
        self.prompts = sorted({prompt for source in self.sources for prompt in source.prompts})
        weights = np.array([source.weight for source in self.sources], float)
        self._reach = np.cumsum(weights / weights.sum()).tolist()[:-1]

    def sample(self, index: int) -> Sample:
        """Return the sample of a number.

        Raises:
            DataError: if none of many draws fits in ``max_seq_len``, or has the code that its prompt needs.
        """
        options = self.options
        for draw in range(MAX_DRAWS):
            try:
                drawn = self.episode(index, draw)
            except DataError as error:  # a line of a file that is read as it goes must not end a long run
                warnings.warn(f"{error}: passed over", SampleWarning, stacklevel=2)
                continue
            if drawn is None:
                continue
            episode, prompt, composition = drawn
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
                return Sample(tree, draw, composition)
        raise DataError(f"data.max_seq_len {options.max_seq_len}: none of {MAX_DRAWS} samples is that short")

    def episode(self, index: int, draw: int = 0) -> tuple[Episode, str, str | None] | None:
        """Return the augmented episode, the prompt and the composition's family of a number's ``draw``-th try.

        ``None`` if the drawn task has no code and its dataset only prompts that need some.
        """
        options = self.options
        rng = np.random.default_rng([self.seed, index, draw])
        source = self.sources[bisect(self._reach, rng.random())]
        task = source.tasks[rng.integers(len(source.tasks))]
        prompt = _draw_prompt(rng.random(), source, task)
        if prompt is None:
            return None
        kind = PROMPTS[prompt]
        episode = self._answers(rng, self._query(rng, task), source.pool, kind)
        # A program is true of the task as it is: only the order of its demonstrations may change.
        fixed = kind in FROM_CODE
        view = draw_view(
            rng,
            len(episode.demonstrations),
            symmetry=not fixed,
            colours=not fixed,
            keep_background_probability=options.keep_background_probability,
        )
        composition = None
        if options.compose_new_task_probability > 0 and not fixed:
            # Its own source of randomness: with another probability all other draws stay what they were.
            own = np.random.default_rng([self.seed, index, draw, 1])
            episode, composition = maybe_compose(
                own, episode, options.compose_new_task_probability, options.compose_new_task_weights
            )
        return view.apply(episode), prompt, None if composition is None else composition.family

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
        pair = task.tests[i]
        episode = Episode(PairKey(task.id, "test", i), task.demonstrations, pair.input, pair.output, (), task.code)
        place = int(rng.integers(n + 1))
        return swap_query(episode, place, PairKey(task.id, "train", place)) if place < n else episode

    def _answers(self, rng: np.random.Generator, episode: Episode, pool: CandidatePool, kind: Kind) -> Episode:
        if kind not in (Kind.VERIFY_OUTPUT_FROM_EXAMPLES, Kind.SELECT_OUTPUT_FROM_EXAMPLES):
            return episode
        n = self.options.wrong_per_episode
        if kind is Kind.SELECT_OUTPUT_FROM_EXAMPLES:
            n = int(rng.integers(1, min(n, MAX_OPTIONS - 1) + 1))
        n_pool = n - int(rng.binomial(n, self.options.distractor_probability))
        grids = pool.draw_wrong(rng, episode.key, episode.output, n_pool)
        grids += draw_distractors(rng, episode, n - len(grids), self.options.distractor_weights, exclude=grids)
        answers = with_right_answer(episode.output, grids)
        if kind is Kind.SELECT_OUTPUT_FROM_EXAMPLES:
            answers = tuple(answers[i] for i in rng.permutation(len(answers)))
        return replace(episode, answers=answers)


def statistics(samples: Sequence[Sample], prompts: Iterable[str], options: SamplingOptions) -> dict[str, float]:
    """Return what is logged about samples: lengths and shares of skipped draws, prompts, compositions, right verdicts.

    The share of right verdicts is left out where none is asked for.

    Args:
        samples: at least one.
        prompts: all that can be drawn.
        options: how they were drawn.
    """
    n, skipped = len(samples), sum(sample.skipped for sample in samples)
    stats = {
        "prefix_tokens": sum(len(sample.tree.prefix) for sample in samples) / n,
        "branch_tokens": sum(len(b.tokens) for sample in samples for b in sample.tree.branches) / n,
        "longest_sequence": sum(sample.tree.longest for sample in samples) / n,
        "skipped_share": skipped / (skipped + n),
    }
    drawn = Counter(sample.tree.prompt for sample in samples)
    stats |= {f"prompt_share/{prompt}": drawn[prompt] / n for prompt in prompts}
    if options.compose_new_task_probability > 0:
        families = Counter(sample.composition for sample in samples if sample.composition)
        stats["composed_share"] = families.total() / n
        stats |= {f"composed_share/{family}": families[family] / n for family in options.compose_new_task_weights}
    verdicts = [b.correct for sample in samples for b in sample.tree.branches if b.correct is not None]
    if verdicts:
        stats["right_share"] = sum(verdicts) / len(verdicts)
    return stats


def with_right_answer(right: Grid, wrong: Sequence[Grid]) -> tuple[Answer, ...]:
    """Return the right output and wrong ones as answers."""
    return (Answer(right, True, 0), *(Answer(grid, False, i) for i, grid in enumerate(wrong, 1)))


def _leave_out(task: Task, i: int, shown: Sequence[int]) -> Episode:
    pair = task.demonstrations[i]
    demonstrations = tuple(task.demonstrations[j] for j in shown)
    return Episode(PairKey(task.id, "train", i), demonstrations, pair.input, pair.output, (), task.code)


def _draw_prompt(number: float, source: Source, task: Task) -> str | None:
    """Draw a prompt that a task can be put in by a number from 0 to 1; ``None`` if there is none."""
    names, probabilities = source.prompts, source.shares
    if task.code is None:
        plain = [i for i, name in enumerate(names) if PROMPTS[name] not in FROM_CODE]
        if not plain:
            return None
        if len(plain) < len(names):
            names, probabilities = [names[i] for i in plain], probabilities[plain] / probabilities[plain].sum()
    return names[bisect(np.cumsum(probabilities).tolist()[:-1], number)]
