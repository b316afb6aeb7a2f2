"""The scheduler: asks next where scores can still change the choice, as long as the budget lasts."""

import time
from collections.abc import Callable, Iterable, Sequence

from lightning_arc.ranking.rankers import Ranker, Ranking
from lightning_arc.ranking.records import RequestId, ScoringRequest, ViewScores, merge_records
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.ranking.stopping import EliminationState, StoppingConfig


class RankingScheduler:
    """Asks requests in steps and ranks by the answers.

    The requests of a step depend only on the answers to earlier steps. So an interrupted run, continued from its
    records, asks the same as an uninterrupted one. Time is the only exception: when it is up, no more is asked.

    Args:
        evidence: one of every test input, without records; this process's share of them is kept.
        ranker: says what to ask, and orders.
        stopping: when requests end.
        rank: which of the processes that rank together this is.
        world_size: how many there are; each takes every ``world_size``-th test input and its share of the tokens.
        cost: computes the tokens of a request. Without it a test input is assumed to cost as much as its last view,
            which may overrun the budget by the first views in flight.
        clock: seconds from any point on.
        done: records of an interrupted run; those of other test inputs or other candidates are ignored.
    """

    def __init__(
        self,
        evidence: Sequence[CandidateScores],
        ranker: Ranker,
        stopping: StoppingConfig | None = None,
        rank: int = 0,
        world_size: int = 1,
        cost: Callable[[ScoringRequest], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        done: Iterable[ViewScores] = (),
    ) -> None:
        self.evidence = list(evidence)[rank::world_size]
        self.ranker, self.stopping = ranker, stopping or StoppingConfig()
        self._cost, self._clock = cost, clock
        self._tokens = None if self.stopping.max_tokens is None else self.stopping.max_tokens // world_size
        self._place = {e.key: i for i, e in enumerate(self.evidence)}
        self._states = [EliminationState(len(e.candidates), self.stopping) for e in self.evidence]
        self._open = {i for i, e in enumerate(self.evidence) if e.candidates}
        self._queue: list[ScoringRequest] = []
        self._step: list[ScoringRequest] = []
        self._pending = [0] * len(self.evidence)
        self._reserved: dict[RequestId, int] = {}
        self._last_cost: dict[int, int] = {}
        self.spent = 0
        self._records: dict[RequestId, ViewScores] = {}
        for record in done:
            if record.key in self._place and self.evidence[self._place[record.key]].fits(record):
                self._keep(record)
        self._began, self._over = clock(), False
        self._slowest, self._slowest_token = 0.0, 0.0
        self._answered, self._answered_tokens = 0, 0
        self._in_flight: dict[RequestId, ScoringRequest] = {}

    def next(self, n: int = 1) -> list[ScoringRequest] | None:
        """Return the requests of the next step.

        Args:
            n: most requests of the step.

        Returns:
            Up to ``n`` requests; none if answers to the last step are missing; ``None`` when all has been asked.
        """
        while not self._over:
            if not self._apply_step():
                return []
            self._step = self._choose(n)
            unanswered = [request for request in self._step if not self._is_answered(request)]
            if not self._step or self._late(len(unanswered)):
                self._over = True
                break
            self._in_flight |= {request.id: request for request in unanswered}
            if unanswered:
                return unanswered
        return None

    def time_is_up(self, more: int, tokens: int | None = None) -> bool:
        """Whether ``more`` answers would come too late. Then no more is asked, and open requests need no answer.

        The slowest pace so far is expected: that of an answer or, where it takes less time, that of a token.

        Args:
            more: number of answers.
            tokens: of all of them; ``None`` where they need more than the tokens of their prompts.
        """
        if more and not self._over and self.stopping.max_seconds is not None:
            elapsed, each, each_token = self._pace()
            expected = each * more if tokens is None else min(each * more, each_token * tokens)
            self._over = elapsed + expected >= self.stopping.max_seconds
        return self._over

    def take(self, record: ViewScores) -> None:
        """Take the answer to a request."""
        self._keep(record)
        if self._in_flight.pop(record.id, None) is not None:
            self._answered += 1
            self._answered_tokens += record.tokens
            self._slowest = max(self._slowest, record.seconds)
            self._slowest_token = max(self._slowest_token, record.seconds / max(record.tokens, 1))

    def rankings(self) -> list[Ranking]:
        """Return the order of each test input's candidates by all answers so far."""
        return [self.ranker.rank(evidence) for evidence in self.answered()]

    def answered(self) -> list[CandidateScores]:
        """Return the evidence of each test input with all answers so far, including those that do not count yet."""
        pending: dict[int, list[ViewScores]] = {}
        for request in self._step:
            if self._is_answered(request):
                pending.setdefault(self._place[request.key], []).append(self._records[request.id])
        return [e.with_records(pending.get(i, ())) for i, e in enumerate(self.evidence)]

    @property
    def settled(self) -> list[bool]:
        """Whether each test input's places are settled by the answers that count."""
        return [state.settled for state in self._states]

    @property
    def progress(self) -> tuple[int, int]:
        """Number of views that are done or no longer needed, and most views, of all test inputs together."""
        most = self.stopping.max_views
        active = [i in self._open or bool(self._pending[i]) for i in range(len(self._states))]
        done = sum(min(s.views, most) if a else most for s, a in zip(self._states, active, strict=True))
        return done, most * len(self._states)

    def _keep(self, record: ViewScores) -> None:
        known = self._records.get(record.id)
        self._records[record.id] = record if known is None else merge_records(known, record)

    def _is_answered(self, request: ScoringRequest) -> bool:
        record = self._records.get(request.id)
        return record is not None and record.answers(request)

    def _apply_step(self) -> bool:
        """Let the answers to the last step count, if all are there."""
        if not all(map(self._is_answered, self._step)):
            return False
        step, self._step = self._step, []
        for request in step:
            i, record = self._place[request.key], self._records[request.id]
            self.evidence[i].take(record)
            self.spent += record.tokens
            self._reserved.pop(request.id)
            self._last_cost[i] = self._last_cost.get(i, 0) + record.tokens
            self._pending[i] -= 1
            if not self._pending[i]:
                self._update(i)
        return True

    def _update(self, i: int) -> None:
        evidence, state = self.evidence[i], self._states[i]
        order = self.ranker.rank(evidence).order.tolist()
        state.update(self.ranker.table(evidence), order, state.views + 1)
        if state.settled:
            self._open.discard(i)

    def _choose(self, n: int) -> list[ScoringRequest]:
        while len(self._queue) < n and (i := self._next_open()) is not None:
            self._ask(i)
        step, self._queue = self._queue[:n], self._queue[n:]
        return step

    def _next_open(self) -> int | None:
        """Return the test input to ask about: those with the fewest views up to the minimum, then the least decided."""

        def urgency(i: int) -> tuple[int, float, int]:
            state = self._states[i]
            return min(state.views, self.stopping.min_views), -state.flip_probability, i

        return min((i for i in self._open if not self._pending[i]), key=urgency, default=None)

    def _ask(self, i: int) -> None:
        evidence, state = self.evidence[i], self._states[i]
        requests = self.ranker.ask(evidence, state.live, state.views)
        costs = [self._cost(request) if self._cost else 0 for request in requests]
        total = sum(costs) if self._cost else self._last_cost.get(i, 0)
        reserved = sum(self._reserved.values())
        if not requests or (self._tokens is not None and self.spent + reserved + total > self._tokens):
            self._open.discard(i)
            return
        state.narrow(place for q in requests for places in (q.candidates, *q.selections) for place in places)
        self._last_cost.pop(i, None)
        if not self._cost:
            costs = [total, *[0] * (len(requests) - 1)]
        self._reserved |= {request.id: cost for request, cost in zip(requests, costs, strict=True)}
        self._pending[i] = len(requests)
        self._queue += requests

    def _late(self, more: int) -> bool:
        """Whether time would be up before what is in flight and ``more`` requests are answered, at the mean pace."""
        if self.stopping.max_seconds is None or not more:
            return False
        elapsed = self._clock() - self._began
        expected = elapsed / self._answered * (len(self._in_flight) + more) if self._answered else 0.0
        return elapsed + expected >= self.stopping.max_seconds

    def _pace(self) -> tuple[float, float, float]:
        """Return the seconds since the first request, and those that an answer and a token take at most."""
        elapsed = self._clock() - self._began
        each = elapsed / self._answered if self._answered else 0.0
        each_token = elapsed / self._answered_tokens if self._answered_tokens else 0.0
        return elapsed, max(self._slowest, each), max(self._slowest_token, each_token)
