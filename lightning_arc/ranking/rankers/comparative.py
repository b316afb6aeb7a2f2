"""Selection: candidates shown beside each other, and the probability that each is chosen."""

from collections.abc import Sequence
from itertools import permutations
from math import ceil
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from lightning_arc.errors import DataError
from lightning_arc.prompt.templates import MAX_OPTIONS
from lightning_arc.ranking.calibration import Calibration
from lightning_arc.ranking.means import standard_errors
from lightning_arc.ranking.rankers.bradley_terry import bradley_terry, soft_wins
from lightning_arc.ranking.rankers.ranker import Ranker, Ranking
from lightning_arc.ranking.records import ScoringRequest
from lightning_arc.ranking.scores import CandidateScores


class ComparativeRanker(Ranker):
    """Orders by Bradley-Terry strengths of choices among candidates; ``p_correct`` is their softmax.

    Under each view the better half of the previous view's contestants are compared again (successive halving; Karnin,
    Koren and Somekh, 2013), down to `survivors`.

    Args:
        style: ``pairs`` asks about every two contestants in both orders. ``list`` asks about all of them in one prompt
            if there are no more than `max_options`, else about groups that are drawn anew each time.
        entrants: most candidates that take part, those with the most votes.
        halving: whether half of the contestants leave after each view.
        survivors: contestants that halving leaves.
        orders: shuffled orders in which a list is shown under each view; they share one prefix.
        max_options: most options of one prompt, 2 to 9.
        prior: virtual wins added between every pair, see `bradley_terry`.
        seed: seed of groups and orders.
        calibration: see `Ranker`.
    """

    name = "selection"
    unit = "log-odds between two"
    kinds = ("select",)

    def __init__(
        self,
        style: Literal["pairs", "list"] = "list",
        entrants: int = 16,
        halving: bool = True,
        survivors: int = 3,
        orders: int = 2,
        max_options: int = MAX_OPTIONS,
        prior: float = 0.1,
        seed: int = 0,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(calibration)
        for setting, value, least in (
            ("entrants", entrants, 2),
            ("survivors", survivors, 2),
            ("orders", orders, 1),
            ("max_options", max_options, 2),
        ):
            if value < least:
                raise DataError(f"ranker.{setting} is {value}, expected at least {least}")
        if max_options > MAX_OPTIONS:
            raise DataError(f"ranker.max_options is {max_options}, expected at most {MAX_OPTIONS}")
        if prior <= 0:
            raise DataError(f"ranker.prior is {prior}, expected more than 0")
        self.style, self.entrants, self.halving, self.survivors = style, entrants, halving, survivors
        self.orders, self.max_options, self.prior, self.seed = orders, max_options, prior, seed

    def ask(self, evidence: CandidateScores, live: Sequence[int], view: int) -> tuple[ScoringRequest, ...]:
        contestants = self._contestants(evidence, live, view)
        if len(contestants) < 2:
            return ()
        selections: tuple[tuple[int, ...], ...]
        if self.style == "pairs":
            selections = tuple(permutations(contestants, 2))
        else:
            rng = np.random.default_rng([self.seed, crc32(str(evidence.key).encode()), view])
            selections = tuple(group for _ in range(self.orders) for group in self._groups(rng, contestants))
        return (ScoringRequest(evidence.key, view, selections=selections),)

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        n = len(evidence.candidates)
        by_view: dict[int, list[tuple[float, tuple[int, ...], tuple[float, ...]]]] = {}
        for view, weight, selection in evidence.selections:
            by_view.setdefault(view, []).append((weight, selection.order, selection.log_probs))
        rows = [self._strengths(answers, n) for answers in by_view.values()]
        return np.array(rows, float).reshape(len(rows), n)

    def rank(self, evidence: CandidateScores) -> Ranking:
        answers = [(weight, choice.order, choice.log_probs) for _, weight, choice in evidence.selections]
        score = self._strengths(answers, len(evidence.candidates))
        return self._ranking(evidence, score, standard_errors(self.table(evidence)))

    def _contestants(self, evidence: CandidateScores, live: Sequence[int], view: int) -> list[int]:
        order = [i for i in self.rank(evidence).order.tolist() if i in set(live)]
        entered = min(self.entrants, len(evidence.candidates))
        room = max(self.survivors, ceil(entered / 2**view)) if self.halving else entered
        return order[:room]

    def _groups(self, rng: np.random.Generator, contestants: list[int]) -> list[tuple[int, ...]]:
        shuffled = rng.permutation(contestants)
        return [tuple(group.tolist()) for group in np.array_split(shuffled, ceil(len(shuffled) / self.max_options))]

    def _strengths(
        self, answers: list[tuple[float, tuple[int, ...], tuple[float, ...]]], n: int
    ) -> NDArray[np.float64]:
        wins, shown = soft_wins(answers, n)
        strengths = np.full(n, np.nan)
        strengths[shown] = bradley_terry(wins[np.ix_(shown, shown)], self.prior)
        return strengths
