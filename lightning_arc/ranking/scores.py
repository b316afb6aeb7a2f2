"""Scores: all records about the candidates of a query, from all views and models."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc import Candidate, CandidatePool, Episode, PairKey, same_grid
from lightning_arc.ranking.records import Choice, RequestId, RequestKind, ScoreName, ViewScores, merge_records


@dataclass(eq=False)
class CandidateScores:
    """All evidence about the ``n`` candidates of one query. It grows record by record.

    Args:
        key: the query: a test input, or a demonstration pair that is left out of the others.
        candidates: its candidates, in input order.
        correct: whether each is right; ``None`` where outputs are unknown.
        weights: weight of each member of an ensemble in the means; ``None`` for equal ones.
    """

    key: PairKey
    candidates: tuple[Candidate, ...]
    correct: list[bool] | None = None
    weights: tuple[float, ...] | None = None
    _records: dict[RequestId, ViewScores] = field(default_factory=dict)

    def take(self, record: ViewScores) -> bool:
        """Merge a record. Where a (view, member) pair already has a value, the earlier value wins.

        Returns:
            Whether the record had a new value; false for a record about other candidates.
        """
        if not self.fits(record):
            return False
        known = self._records.get(record.id)
        merged = record if known is None else merge_records(known, record)
        if merged is known:
            return False
        self._records[record.id] = merged
        for name in ("log_odds", "log_likelihood", "mismatches", "selections"):
            self.__dict__.pop(name, None)
        return True

    def fits(self, record: ViewScores) -> bool:
        """Whether a record is about this test input and has as many candidates."""
        n = len(self.candidates)
        return (
            record.key == self.key
            and len(record.log_odds) == len(record.log_likelihood) == n
            and len(record.mismatches) in (0, n)
            and all(_fits(selection, n) for selection in record.selections)
        )

    def with_records(self, records: Iterable[ViewScores]) -> "CandidateScores":
        """Return a copy that has taken more records."""
        more = replace(self, _records=dict(self._records))
        for record in records:
            more.take(record)
        return more

    def first_views(self, n: int) -> "CandidateScores":
        """Return the evidence of the first ``n`` views."""
        return replace(self, _records={id_: r for id_, r in self._records.items() if r.view < n})

    def weighted(self, weights: Sequence[float]) -> "CandidateScores":
        """Return a copy with other weights of the members; members beyond the weights are ignored."""
        kept = {id_: r for id_, r in self._records.items() if r.member < len(weights)}
        return replace(self, weights=tuple(weights), _records=kept)

    @property
    def records(self) -> list[ViewScores]:
        """All records, by view, member and kind."""
        return [record for _, record in sorted(self._records.items())]

    @cached_property
    def log_odds(self) -> NDArray[np.float64]:
        """``(views, n)`` log-odds, one row per judged view, means over members; nan where a member did not judge."""
        return self._table("log_odds")

    @cached_property
    def log_likelihood(self) -> NDArray[np.float64]:
        """``(views, n)`` log-likelihoods, rows and means as of `log_odds`."""
        return self._table("log_likelihood")

    @cached_property
    def mismatches(self) -> NDArray[np.float64]:
        """``(views, n)`` numbers of tokens that are not the likeliest one, rows and means as of `log_odds`."""
        return self._table("mismatches")

    @cached_property
    def selections(self) -> list[tuple[int, float, Choice]]:
        """View, weight and answer of every selection that was answered."""
        return [
            (record.view, 1.0 if self.weights is None else self.weights[record.member], selection)
            for record in self.records
            for selection in record.selections
            if np.isfinite(selection.log_probs).all()
        ]

    @property
    def votes(self) -> NDArray[np.int64]:
        """``(n,)`` votes."""
        return np.array([c.votes for c in self.candidates], np.int64)

    @property
    def solver_score(self) -> NDArray[np.float64]:
        """``(n,)`` log-likelihoods from the candidates' file, nan where it has none."""
        return np.array([math.nan if c.log_likelihood is None else c.log_likelihood for c in self.candidates], float)

    @property
    def views(self) -> NDArray[np.int64]:
        """``(n,)`` number of views in which a model scored a candidate."""
        seen: list[set[int]] = [set() for _ in self.candidates]
        for record in self.records:
            scored = np.isfinite(record.log_odds) | np.isfinite(record.log_likelihood)
            for place in np.flatnonzero(scored).tolist():
                seen[place].add(record.view)
        for view, _, selection in self.selections:
            for place in selection.order:
                seen[place].add(view)
        return np.array([len(views) for views in seen], np.int64)

    @property
    def solvable(self) -> bool:
        """Whether the right output is known to be among the candidates."""
        return self.any_right(range(len(self.candidates)))

    @property
    def mixed(self) -> bool:
        """Whether right and wrong outputs are known to be among the candidates."""
        return self.correct is not None and any(self.correct) and not all(self.correct)

    @property
    def right_place(self) -> int:
        """Place of the right output among the candidates.

        Raises:
            ValueError: if it is not known to be there.
        """
        if self.correct is None:
            raise ValueError(f"{self.key}: the right output is not known")
        return self.correct.index(True)

    def any_right(self, places: Iterable[int]) -> bool:
        """Return whether one of some candidates is known to be right."""
        return self.correct is not None and any(self.correct[place] for place in places)

    def cost(self, kinds: Iterable[RequestKind] = ("verify", "select")) -> tuple[float, int, int]:
        """Return seconds, prefix tokens and branch tokens of all requests of some kinds."""
        counted = [record for id_, record in self._records.items() if id_.kind in set(kinds)]
        seconds = sum(record.seconds for record in counted)
        return seconds, sum(r.prefix_tokens for r in counted), sum(r.branch_tokens for r in counted)

    def test_time_tokens(self, kinds: Iterable[RequestKind] = ("verify", "select")) -> int:
        """Return the tokens of test-time training that came before requests of some kinds."""
        return sum(record.test_time_tokens for id_, record in self._records.items() if id_.kind in set(kinds))

    def _table(self, name: ScoreName) -> NDArray[np.float64]:
        rows: dict[int, list[tuple[float, Sequence[float]]]] = {}
        for id_, record in sorted(self._records.items()):
            if id_.kind == "verify":
                weight = 1.0 if self.weights is None else self.weights[id_.member]
                rows.setdefault(id_.view, []).append((weight, record.values(name)))
        means = [_weighted_mean(row) for row in rows.values()]
        return np.array(means, float).reshape(len(means), len(self.candidates))


def gather(
    queries: Mapping[PairKey, Episode], pool: CandidatePool, records: Iterable[ViewScores]
) -> list[CandidateScores]:
    """Gather the records into one `CandidateScores` for each query, with or without candidates.

    The first value of a (query, view, member) counts; records that do not fit the candidates are left out.
    """
    gathered: dict[PairKey, CandidateScores] = {}
    for key, query in queries.items():
        candidates = pool[key]
        correct = None if query.output is None else [same_grid(c.grid, query.output) for c in candidates]
        gathered[key] = CandidateScores(key, candidates, correct)
    for record in records:
        if record.key in gathered:
            gathered[record.key].take(record)
    return list(gathered.values())


def counted(keys: Collection[PairKey]) -> str:
    """Return how many test inputs there are among some keys, and how many demonstration pairs if there are any."""
    tests = sum(key.split == "test" for key in keys)
    others = len(keys) - tests
    words = [f"{tests} test input{'s' * (tests != 1)}", f"{others} demonstration pair{'s' * (others != 1)}"]
    return " and ".join(words if others else words[:1])


def _fits(selection: Choice, n: int) -> bool:
    places = selection.order
    return len(set(places)) == len(places) == len(selection.log_probs) > 1 and min(places) >= 0 and max(places) < n


def _weighted_mean(row: list[tuple[float, Sequence[float]]]) -> NDArray[np.float64]:
    total = sum(weight for weight, _ in row)
    values = sum(weight * np.array(values, float) for weight, values in row) / (total or 1.0)
    return np.where(np.isfinite(values), values, np.nan)
