"""Training samples: which episode, answers, augmentation and prompt belong to a number.

Knows tasks, pools, augmentation and prompts. Knows nothing of loaders, batches or models. A sample is a pure function
of a seed and an index: the same on any number of workers, and after any restart.
"""

import warnings
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lightning_arc.arc.candidates import CandidatePool
from lightning_arc.arc.grid import DataError, Grid
from lightning_arc.arc.task import Answer, Episode, PairKey, Task
from lightning_arc.augment.composition import DEFAULT_WEIGHTS, maybe_compose
from lightning_arc.augment.distractors import DEFAULT_WEIGHTS as DISTRACTOR_WEIGHTS
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.augment.views import draw_view, swap_query
from lightning_arc.prompt.layouts import FROM_CODE, MAX_OPTIONS, PROMPTS
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tree import Kind, TokenTree
from lightning_arc.sources import Source

MAX_DRAWS = 200


class SampleWarning(UserWarning):
    """A sample was passed over because its task is not valid."""


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
