"""Training samples: which episode, answers, augmentation and prompt belong to a number.

A sample is a pure function of a seed and an index: the same on any number of workers, and after any restart.
"""

import warnings
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from lightning_arc.arc.candidates import Pool
from lightning_arc.arc.grid import Grid
from lightning_arc.arc.leave_one_out import FEW, MANY
from lightning_arc.arc.task import Episode, LabeledCandidate, PairKey, Task
from lightning_arc.augment.composition import DEFAULT_WEIGHTS, maybe_compose
from lightning_arc.augment.distractors import DEFAULT_WEIGHTS as DISTRACTOR_WEIGHTS
from lightning_arc.augment.distractors import MAKERS, draw_distractors
from lightning_arc.augment.views import draw_view, swap_query
from lightning_arc.augment.weights import shares
from lightning_arc.data.checks import check_at_least_1
from lightning_arc.data.sources import Source
from lightning_arc.errors import DataError, LineError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, MAX_OPTIONS, PROMPTS
from lightning_arc.prompt.tree import PromptKind, TokenTree

PATIENCE = 50
"""Consecutive rejected draws after which another pair of dataset and prompt is taken for a sample."""

MIN_ROUNDS = 4
"""Fewest rounds of `PATIENCE` draws before a sample is given up."""

SKIPS = ("too_long", "bad_line", "no_code", "no_demonstration", "no_wrong")
"""Why a draw is rejected: its sequence is too long, its line has no valid task, its prompt needs code that the task
lacks, its task has a single pair, which leaves no demonstration, or there is no wrong prediction to judge or to choose
beside the right output."""


class SampleWarning(UserWarning):
    """A sample was passed over because its task is not valid."""


class SkippedError(Exception):
    """A draw is rejected; the argument is one of `SKIPS`."""


@dataclass(frozen=True)
class Sample:
    """A training sample.

    Args:
        tree: its token tree.
        skipped: number of rejected draws before it, by reason.
        composition: family of the task composition, ``None`` where the task is as it was.
        source: name of the dataset it is from.
        sources: names of all datasets.
    """

    tree: TokenTree
    skipped: Counter[str]
    composition: str | None
    source: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn.

    Args:
        max_seq_len: most tokens of one sequence, prefix and branch together.
        drop_demonstrations: whether demonstrations are left out where a sequence is longer; else the sample is skipped.
        learn_demonstrations: whether outputs of demonstrations are trained too, from the second on.
        wrong_per_episode: wrong predictions that are judged beside the right output in one prompt.
        distractor_probability: share of wrong predictions that is made from the task even where the pool has enough.
        distractor_weights: how often each kind of made wrong predictions is drawn.
        verify_correct_output_probability: share of the right output in the loss of verdicts.
        compose_new_task_probability: how often inputs or outputs are transformed to make another task.
        compose_new_task_weights: how often each family of transformations is drawn.
        keep_background_probability: how often colour 0 keeps its place in a permutation of colours.
        pool_demonstrations: least and most demonstrations that are drawn of a list of interchangeable pairs (RE-ARC).

    Raises:
        DataError: names the invalid option.
    """

    max_seq_len: int = 4096
    drop_demonstrations: bool = True
    learn_demonstrations: bool = False
    wrong_per_episode: int = 4
    distractor_probability: float = 0.25
    distractor_weights: dict[str, float] | None = None
    verify_correct_output_probability: float = 0.5
    compose_new_task_probability: float = 0.0
    compose_new_task_weights: dict[str, float] | None = None
    keep_background_probability: float = 0.9
    pool_demonstrations: tuple[int, int] = (FEW, MANY)

    def __post_init__(self) -> None:
        """Check the options."""
        for name in (
            "verify_correct_output_probability",
            "compose_new_task_probability",
            "keep_background_probability",
            "distractor_probability",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"data.{name} is {getattr(self, name)}, expected 0 to 1")
        check_at_least_1(self, "max_seq_len", "wrong_per_episode")
        low, high = self.pool_demonstrations
        if not 1 <= low <= high:
            raise DataError(f"data.pool_demonstrations is {[low, high]}, expected 1 <= least <= most")
        shares(self.families, DEFAULT_WEIGHTS, "data.compose_new_task_weights")
        shares(self.makers, MAKERS, "data.distractor_weights")

    @property
    def families(self) -> Mapping[str, float]:
        """How often each family of transformations is drawn: the option, or its default."""
        return self.compose_new_task_weights or DEFAULT_WEIGHTS

    @property
    def makers(self) -> Mapping[str, float]:
        """How often each kind of wrong prediction is made: the option, or its default."""
        return self.distractor_weights or DISTRACTOR_WEIGHTS

    @property
    def sampling_name(self) -> str:
        """Text that is the same for the same samples. It is part of the signature that interrupted work must match."""
        values = {option.name: getattr(self, option.name) for option in fields(SamplingOptions)}
        values |= {"compose_new_task_weights": dict(self.families), "distractor_weights": dict(self.makers)}
        return str(SamplingOptions(**values))


def fit_demonstrations(
    prompt_encoder: PromptEncoder, episode: Episode, prompt: str, max_seq_len: int, drop: bool, **options: Any
) -> TokenTree | None:
    """Make an episode's token tree within a length.

    Args:
        prompt_encoder: makes the tree.
        episode: what to show.
        prompt: name and version.
        max_seq_len: most tokens of prefix and longest branch together.
        drop: whether demonstrations may be left out, the last ones first, as long as one remains.
        options: passed on to `PromptEncoder.tree`.

    Returns:
        The tree, or ``None`` if it does not fit.
    """
    return fit_tree(lambda shown: prompt_encoder.tree(shown, prompt, **options), episode, max_seq_len, drop)


def fit_tree(make: Callable[[Episode], TokenTree], episode: Episode, max_seq_len: int, drop: bool) -> TokenTree | None:
    """Make a token tree of an episode, with fewer demonstrations where it is too long, see `fit_demonstrations`."""
    while True:
        tree = make(episode)
        if tree.longest <= max_seq_len:
            return tree
        if not drop or len(episode.demonstrations) < 2:
            return None
        episode = replace(episode, demonstrations=episode.demonstrations[:-1])


class Sampler:
    """Draws training samples.

    Dataset and prompt of a sample follow from its number, by their weights. If the drawn task, query and answers are
    rejected (see `SKIPS`), only these are drawn again, so that datasets and prompts with long samples keep their
    shares. After `PATIENCE` rejections in a row, another pair of dataset and prompt is taken.

    Args:
        sources: datasets that have been read.
        prompt_encoder: makes token trees.
        options: how samples are drawn.
        seed: determines, with an index, the sample.
    """

    def __init__(
        self, sources: Sequence[Source], prompt_encoder: PromptEncoder, options: SamplingOptions, seed: int
    ) -> None:
        self.sources, self.prompt_encoder, self.options, self.seed = tuple(sources), prompt_encoder, options, seed
        if not all(len(source.tasks) for source in self.sources):
            raise DataError("train_datasets: a dataset has no task left to train with")
        self.prompts = sorted({prompt for source in self.sources for prompt in source.prompts})
        self.source_names = tuple(dict.fromkeys(source.name for source in self.sources))
        self._choices = [(source, prompt) for source in self.sources for prompt in source.prompts]
        weights = np.concatenate([source.weight * source.shares for source in self.sources])
        self._weights = weights / weights.sum()
        self._reach = np.cumsum(self._weights).tolist()[:-1]

    def sample(self, index: int) -> Sample:
        """Return the sample of a number.

        Raises:
            DataError: if many draws were all rejected, with the reasons; or if a pool is found damaged on access.
        """
        options, skipped = self.options, Counter[str]()
        n_draws = PATIENCE * max(MIN_ROUNDS, len(self._choices))
        for draw in range(n_draws):
            try:
                episode, prompt, composition = self.episode(index, draw)
                tree = fit_demonstrations(
                    self.prompt_encoder,
                    episode,
                    prompt,
                    options.max_seq_len,
                    options.drop_demonstrations,
                    right_share=options.verify_correct_output_probability,
                    learn_demonstrations=options.learn_demonstrations,
                )
                if tree is None:
                    raise SkippedError("too_long")
            except LineError as error:  # an invalid line must not end a long run
                warnings.warn(f"{error}: passed over", SampleWarning, stacklevel=2)
                skipped["bad_line"] += 1
            except SkippedError as error:
                skipped[error.args[0]] += 1
            else:
                return Sample(tree, skipped, composition, self.choice(index, draw)[0].name, self.source_names)
        reasons = {
            "too_long": f"longer than data.max_seq_len {options.max_seq_len}",
            "bad_line": "lines without a valid task",
            "no_code": "tasks without the code that the prompt needs",
            "no_demonstration": "tasks of a single pair, which leaves no demonstration",
            "no_wrong": "without a wrong prediction (data.distractor_weights)",
        }
        counts = ", ".join(f"{skipped[reason]} {reasons[reason]}" for reason in SKIPS if skipped[reason])
        raise DataError(f"data.train_datasets: none of {n_draws} draws gives a sample: {counts}")

    def choice(self, index: int, draw: int = 0) -> tuple[Source, str]:
        """Return the source and the prompt of a number's ``draw``-th try."""
        # A last 0 would change nothing: numpy takes missing numbers of a seed for zeros.
        first = bisect(self._reach, np.random.default_rng([self.seed, index, 0, 2]).random())
        turn = draw // PATIENCE % len(self._choices)
        if turn == 0:
            return self._choices[first]
        weights = self._weights.copy()
        weights[first] = 0
        rng = np.random.default_rng([self.seed, index, 0, 3])
        others = rng.choice(len(weights), size=len(weights) - 1, replace=False, p=weights / weights.sum())
        return self._choices[others[turn - 1]]

    def episode(self, index: int, draw: int = 0) -> tuple[Episode, str, str | None]:
        """Return the augmented episode, the prompt and the composition's family of a number's ``draw``-th try.

        Raises:
            LineError: if the drawn task is read on access and invalid.
            SkippedError: if the drawn task cannot be used in the prompt.
        """
        options = self.options
        source, prompt = self.choice(index, draw)
        rng = np.random.default_rng([self.seed, index, draw])
        task, kind = source.tasks.draw(rng), PROMPTS[prompt]
        if kind in FROM_CODE and task.code is None:
            raise SkippedError("no_code")
        episode = self._query(rng, task)
        if not episode.demonstrations:
            raise SkippedError("no_demonstration")
        episode = self._answers(rng, episode, source.pool, kind)
        # A program fits the task itself: only the order of the demonstrations may change.
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
            episode, composition = maybe_compose(own, episode, options.compose_new_task_probability, options.families)
        return view.apply(episode), prompt, None if composition is None else composition.family

    def _query(self, rng: np.random.Generator, task: Task) -> Episode:
        n = len(task.demonstrations)
        if task.is_pair_generator:
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

    def _answers(self, rng: np.random.Generator, episode: Episode, pool: Pool, kind: PromptKind) -> Episode:
        if kind not in (PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES, PromptKind.SELECT_OUTPUT_FROM_EXAMPLES):
            return episode
        n = self.options.wrong_per_episode
        if kind is PromptKind.SELECT_OUTPUT_FROM_EXAMPLES:
            n = int(rng.integers(1, min(n, MAX_OPTIONS - 1) + 1))
        n_pool = n - int(rng.binomial(n, self.options.distractor_probability))
        grids = pool.draw_wrong(rng, episode.key, episode.known_output, n_pool)
        grids += draw_distractors(rng, episode, n - len(grids), self.options.makers, exclude=grids)
        if not grids:
            raise SkippedError("no_wrong")
        answers = with_right_answer(episode.known_output, grids)
        if kind is PromptKind.SELECT_OUTPUT_FROM_EXAMPLES:
            answers = tuple(answers[i] for i in rng.permutation(len(answers)))
        return replace(episode, answers=answers)


def statistics(samples: Sequence[Sample], prompts: Iterable[str], options: SamplingOptions) -> dict[str, float]:
    """Return what is logged about samples: lengths, and shares of rejections by reason, datasets, prompts and so on.

    A dataset has its share of the samples and of their tokens, and the share of all draws that were rejected before
    one of its samples. The share of right verdicts is left out where no verdict is asked for.

    Args:
        samples: at least one.
        prompts: all that can be drawn.
        options: how they were drawn.
    """
    n, skipped = len(samples), Counter[str]()
    for sample in samples:
        skipped.update(sample.skipped)
    n_draws = n + skipped.total()
    stats = {
        "prefix_tokens": sum(len(sample.tree.prefix) for sample in samples) / n,
        "branch_tokens": sum(len(b.tokens) for sample in samples for b in sample.tree.branches) / n,
        "longest_sequence": sum(sample.tree.longest for sample in samples) / n,
        "skipped_share": skipped.total() / n_draws,
    }
    stats |= {f"skipped_share/{reason}": skipped[reason] / n_draws for reason in SKIPS}
    came = Counter(sample.source for sample in samples)
    stats |= {f"source_share/{name}": came[name] / n for name in samples[0].sources}
    tokens, draws = Counter[str](), Counter[str]()
    for sample in samples:
        tokens[sample.source] += len(sample.tree.prefix) + sum(len(branch.tokens) for branch in sample.tree.branches)
        draws[sample.source] += sample.skipped.total()
    stats |= {f"source_token_share/{name}": tokens[name] / tokens.total() for name in samples[0].sources}
    stats |= {f"source_skipped_share/{name}": draws[name] / n_draws for name in samples[0].sources}
    drawn = Counter(sample.tree.prompt for sample in samples)
    stats |= {f"prompt_share/{prompt}": drawn[prompt] / n for prompt in prompts}
    if options.compose_new_task_probability > 0:
        families = Counter(sample.composition for sample in samples if sample.composition)
        stats["composed_share"] = families.total() / n
        stats |= {f"composed_share/{family}": families[family] / n for family in options.families}
    verdicts = [b.correct for sample in samples for b in sample.tree.branches if b.correct is not None]
    if verdicts:
        stats["right_share"] = sum(verdicts) / len(verdicts)
    return stats


def with_right_answer(right: Grid, wrong: Sequence[Grid]) -> tuple[LabeledCandidate, ...]:
    """Return the right output and wrong ones as answers."""
    return (LabeledCandidate(right, True, 0), *(LabeledCandidate(grid, False, i) for i, grid in enumerate(wrong, 1)))


def _leave_out(task: Task, i: int, shown: Sequence[int]) -> Episode:
    pair = task.demonstrations[i]
    demonstrations = tuple(task.demonstrations[j] for j in shown)
    return Episode(PairKey(task.id, "train", i), demonstrations, pair.input, pair.output, (), task.code)
