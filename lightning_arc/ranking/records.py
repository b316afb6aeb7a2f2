"""Records: requests to a model about a test input under one view, and its answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from lightning_arc.arc import PairKey

RequestKind = Literal["verify", "select"]
ScoreName = Literal["log_odds", "log_likelihood", "mismatches"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)


class RequestId(NamedTuple):
    """The identity of a request, which its answer shares."""

    key: PairKey
    view: int
    member: int
    kind: RequestKind


@dataclass(frozen=True)
class ScoringRequest:
    """What a model is asked about a test input under one view: to judge candidates, or to choose among them.

    Args:
        key: the test input.
        view: number of the view.
        candidates: places of the candidates that are written and judged.
        selections: the candidates of each selection in the order they are shown; all selections share one prefix.
        member: which model of an ensemble is asked.
    """

    key: PairKey
    view: int
    candidates: tuple[int, ...] = ()
    selections: tuple[tuple[int, ...], ...] = ()
    member: int = 0

    @property
    def id(self) -> RequestId:
        """Its identity, which its answer shares."""
        return RequestId(self.key, self.view, self.member, "select" if self.selections else "verify")


@dataclass(frozen=True)
class Choice:
    """The answer to one selection.

    Args:
        order: places of the candidates, as they were shown.
        log_probs: log-probability of the number of each; nan if it could not be asked.
    """

    order: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class ViewScores:
    """The answer to a request: one model's scores of a test input's ``n`` candidates under one view.

    Args:
        key: the test input.
        view: number of the view.
        log_odds: ``n`` log-odds that a candidate is right, nan where it was not judged.
        log_likelihood: ``n`` log-probabilities of writing it, nan where it was not scored.
        prefix_tokens: tokens of the shared prefix.
        branch_tokens: tokens of all branches.
        seconds: time the model took.
        member: which model of an ensemble this is.
        candidates: places of the candidates that were asked about, ``None`` for all; those without a value were too
            long.
        selections: the answered selections.
        test_time_tokens: tokens of the test-time training that came before it, 0 where the model was trained already.
        max_seq_len: the limit that some of the request exceeded; ``None`` if nothing did, and in records of earlier
            versions.
        diverged: whether that training diverged, so that the untrained model answered.
        mismatches: for each of ``n`` candidates, the number of tokens that are not the likeliest one, given all before;
            nan as in `log_likelihood`. Empty in records of earlier versions, which did not count them.
    """

    key: PairKey
    view: int
    log_odds: Sequence[float]
    log_likelihood: Sequence[float]
    prefix_tokens: int = 0
    branch_tokens: int = 0
    seconds: float = 0.0
    member: int = 0
    candidates: tuple[int, ...] | None = None
    selections: tuple[Choice, ...] = ()
    test_time_tokens: int = 0
    max_seq_len: int | None = None
    diverged: bool = False
    mismatches: Sequence[float] = ()

    @property
    def id(self) -> RequestId:
        """Its identity, which its request shares."""
        return RequestId(self.key, self.view, self.member, "select" if self.selections else "verify")

    @property
    def tokens(self) -> int:
        """Tokens of prefix and branches."""
        return self.prefix_tokens + self.branch_tokens

    @property
    def n_answers(self) -> int:
        """Candidates that have a value, and selections."""
        return sum(not math.isnan(value) for value in self.log_likelihood) + len(self.selections)

    @property
    def complete(self) -> bool:
        """Whether everything that was asked has a value; missing values were too long."""
        if self.selections:
            return all(math.isfinite(p) for choice in self.selections for p in choice.log_probs)
        places = range(len(self.log_odds)) if self.candidates is None else self.candidates
        return all(math.isfinite(self.log_odds[i]) or math.isfinite(self.log_likelihood[i]) for i in places)

    def values(self, name: ScoreName) -> Sequence[float]:
        """Return the ``n`` scores of a name, nan where missing."""
        return getattr(self, name) or [math.nan] * len(self.log_odds)

    def answers(self, request: ScoringRequest) -> bool:
        """Whether this record covers everything in the request."""
        if self.id != request.id:
            return False
        known = {selection.order for selection in self.selections}
        return known.issuperset(request.selections) and (
            self.candidates is None or set(self.candidates).issuperset(request.candidates)
        )


def no_answer(request: ScoringRequest, n: int, max_seq_len: int | None = None) -> ViewScores:
    """Return the answer to a request about ``n`` candidates that is too long to be asked at all.

    Args:
        request: what would have been asked.
        n: candidates of the test input.
        max_seq_len: the limit that it is too long for, ``None`` if unknown.
    """
    silence = [math.nan] * n
    skipped = tuple(Choice(order, (math.nan,) * len(order)) for order in request.selections)
    return ViewScores(
        request.key,
        request.view,
        log_odds=silence,
        log_likelihood=silence,
        member=request.member,
        candidates=request.candidates,
        selections=skipped,
        max_seq_len=max_seq_len,
        mismatches=silence,
    )


def merge_records(one: ViewScores, other: ViewScores) -> ViewScores:
    """Return ``one`` with the scores that only ``other`` has; ``one`` itself if there are none."""
    places = range(len(one.log_odds))
    scored, more = (set(places if record.candidates is None else record.candidates) for record in (one, other))
    orders = {choice.order for choice in one.selections}
    choices = tuple(choice for choice in other.selections if choice.order not in orders)
    if not more - scored and not choices:
        return one
    costs = ("prefix_tokens", "branch_tokens", "seconds", "test_time_tokens")
    merged: dict[str, Any] = {name: getattr(one, name) + getattr(other, name) for name in costs}
    for name in SCORES:
        both = zip(one.values(name), other.values(name), strict=True)
        merged[name] = [after if i in more - scored else before for i, (before, after) in enumerate(both)]
    merged["max_seq_len"] = one.max_seq_len if other.max_seq_len is None else other.max_seq_len
    merged |= {"candidates": tuple(sorted(scored | more)), "diverged": one.diverged or other.diverged}
    return replace(one, **merged, selections=one.selections + choices)


def encode_scores(record: ViewScores) -> dict[str, Any]:
    """Return a record as JSON holds it, nan and infinity as null."""
    return {
        "key": list(record.key),
        "view": record.view,
        "member": record.member,
        "candidates": None if record.candidates is None else list(record.candidates),
        "log_odds": _finite(record.log_odds),
        "log_likelihood": _finite(record.log_likelihood),
        "mismatches": _finite(record.mismatches),
        "selections": [[list(s.order), _finite(s.log_probs)] for s in record.selections],
        "prefix_tokens": record.prefix_tokens,
        "branch_tokens": record.branch_tokens,
        "seconds": round(record.seconds, 6),
        "test_time_tokens": record.test_time_tokens,
        "max_seq_len": record.max_seq_len,
        "diverged": record.diverged,
    }


def decode_scores(value: Any) -> ViewScores | None:
    """Return the record that a JSON value holds, ``None`` if it holds none."""
    try:
        task_id, split, index = value["key"]
        candidates, limit = value.get("candidates"), value.get("max_seq_len")
        return ViewScores(
            PairKey(str(task_id), str(split), int(index)),
            int(value["view"]),
            _floats(value["log_odds"]),
            _floats(value["log_likelihood"]),
            int(value["prefix_tokens"]),
            int(value["branch_tokens"]),
            float(value["seconds"]),
            int(value.get("member", 0)),
            None if candidates is None else tuple(int(place) for place in candidates),
            tuple(
                Choice(tuple(int(place) for place in order), tuple(_floats(log_probs)))
                for order, log_probs in value.get("selections", [])
            ),
            int(value.get("test_time_tokens", value.get("lesson_tokens", 0))),  # the name in earlier files
            None if limit is None else int(limit),
            bool(value.get("diverged", False)),
            tuple(_floats(value.get("mismatches", []))),
        )
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
        return None


def _finite(values: Sequence[float]) -> list[float | None]:
    return [x if math.isfinite(x) else None for x in values]


def _floats(values: list[float | None]) -> list[float]:
    return [math.nan if x is None else float(x) for x in values]
