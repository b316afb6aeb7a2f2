"""Writes what a ranking gives: the submission, every candidate's evidence, the accuracies, and a report to look at.

Knows predictions, rankers and the four files. Knows nothing of how a model makes evidence.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from rich.console import Console
from rich.table import Table

from lightning_arc.arc import Grid, Task
from lightning_arc.arc.candidate_files import dump_line
from lightning_arc.arc.files import whole_file, write_json
from lightning_arc.arc.submission import write_submission
from lightning_arc.callbacks.report import write_report
from lightning_arc.callbacks.resuming import ResumingWriter
from lightning_arc.ranking.evidence import Evidence, gather
from lightning_arc.ranking.means import paired_means
from lightning_arc.ranking.metrics import score_methods
from lightning_arc.ranking.ranker import Ranking
from lightning_arc.ranking.rankers import RANKERS
from lightning_arc.ranking.records import ViewEvidence, decode_evidence, encode_evidence


class RankingWriter(ResumingWriter):
    """Writes ``submission.json``, ``ranking.jsonl``, ``metrics.json`` and ``report.html`` in ``default_root_dir``.

    The evidence stays beside them in ``evidence-RANK.jsonl``, see `ResumingWriter`.

    Args:
        ranker: the method that the submission and the order of ``ranking.jsonl`` follow.
    """

    name = "evidence"

    def __init__(self, ranker: Literal["verifier", "likelihood", "vote"] = "verifier") -> None:
        super().__init__()
        self.ranker = ranker

    def record(self, output: dict[str, Any]) -> ViewEvidence:
        """Return the evidence of a view."""
        return ViewEvidence(**output)

    def encode(self, record: ViewEvidence) -> dict[str, Any]:
        """Return evidence as JSON holds it."""
        return encode_evidence(record)

    def decode(self, value: Any) -> ViewEvidence | None:
        """Return the evidence of a JSON value, ``None`` if it holds none."""
        return decode_evidence(value)

    def write(self, trainer: L.Trainer, pl_module: L.LightningModule, records: list[ViewEvidence]) -> None:
        """Rank and write the four files."""
        data = trainer.datamodule
        evidence = gather(data.predict_tasks, data.predict_candidates, records)
        write_ranking(Path(trainer.default_root_dir), data.predict_tasks, evidence, self.ranker)


def write_ranking(folder: Path, tasks: Mapping[str, Task], evidence: Sequence[Evidence], chosen: str) -> None:
    """Rank by every method, write the four files, and print the table of methods.

    Args:
        folder: where they go.
        tasks: all tasks of the submission.
        evidence: one per test input.
        chosen: the method that the submission follows.
    """
    metrics = score_methods(evidence, RANKERS, chosen)
    rankings = [RANKERS[chosen].rank(e) for e in evidence]
    lines = [ranking_line(e, r) for e, r in zip(evidence, rankings, strict=True)]
    write_submission(answers(evidence, rankings), tasks, folder / "submission.json")
    with whole_file(folder / "ranking.jsonl") as path:
        path.write_text("".join(dump_line(line) for line in lines), encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    write_report(folder / "report.html", tasks, evidence, rankings, metrics)
    print_metrics(metrics, folder)


def answers(evidence: Sequence[Evidence], rankings: Sequence[Ranking]) -> dict[str, list[list[Grid]]]:
    """Return by task id, for each of its test inputs, the candidates' grids in rank order."""
    grids: dict[str, list[list[Grid]]] = {}
    for e, ranking in zip(evidence, rankings, strict=True):
        grids.setdefault(e.key.task_id, []).append([e.candidates[i].grid for i in ranking.order])
    return grids


def ranking_line(evidence: Evidence, ranking: Ranking) -> dict[str, Any]:
    """Return a test input's line of ``ranking.jsonl``: its candidates in rank order."""
    likelihood, views = paired_means(evidence.log_likelihood), evidence.views
    candidates = []
    for rank, i in enumerate(ranking.order.tolist(), 1):
        candidates.append(
            {
                "rank": rank,
                "grid": evidence.candidates[i].grid.tolist(),
                "votes": evidence.candidates[i].votes,
                "score": _number(ranking.score[i]),
                "p_correct": _number(ranking.p_correct[i]),
                "stderr": _number(ranking.stderr[i]),
                "views": int(views[i]),
                "log_likelihood": _number(likelihood[i]),
                "correct": None if evidence.correct is None else evidence.correct[i],
            }
        )
    return {"task_id": evidence.key.task_id, "test_index": evidence.key.index, "candidates": candidates}


def print_metrics(metrics: Mapping[str, Any], folder: Path) -> None:
    """Print the methods beside each other; the chosen one has a star."""
    solvable = metrics["n_solvable"]
    known = "outputs unknown" if solvable is None else f"the right output is among the candidates of {solvable}"
    title = f"{metrics['n_tests']} test inputs, {known}"
    table = Table(title=title, title_style="bold", caption=f"written to {folder}")
    for column in ("method", "top-1 (95%)", "top-2 (95%)", "seconds", "tokens"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for name, m in metrics["methods"].items():
        accuracies = [_accuracy(m[f"top{k}"], m[f"top{k}_ci"]) for k in (1, 2)]
        tokens = m["prefix_tokens"] + m["branch_tokens"]
        star = " *" if name == metrics["chosen"] else ""
        table.add_row(name + star, *accuracies, f"{m['seconds']:.1f}", f"{tokens:,}")
    Console().print(table)


def _accuracy(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{100 * value:.1f}% ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
