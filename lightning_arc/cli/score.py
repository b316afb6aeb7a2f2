"""Scoring a finished submission as ARC does: ``cli.py score SUBMISSION --tasks TASKS``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_arc.arc import (
    Candidate,
    CandidatePool,
    Grid,
    Task,
    leave_one_out,
    read_submission,
    same_grid,
)
from lightning_arc.arc.io.files import write_json
from lightning_arc.arc.io.outputs import check_file
from lightning_arc.arc.io.submission import NO_ANSWER, count_placeholders
from lightning_arc.arc.io.tasks import read_all_tasks
from lightning_arc.errors import DataError, shortened
from lightning_arc.ranking.coverage import explain_placeholders
from lightning_arc.ranking.metrics import ATTEMPTS, bootstrap_interval, competition_score, file_order
from lightning_arc.ranking.scores import gather

NAMED = 5
"""Most ids of missing and of unknown tasks that are printed."""


@dataclass(frozen=True)
class SubmissionScore:
    """The score of a submission.

    Args:
        n_tasks: number of tasks, including those that the submission lacks.
        n_tests: number of their test inputs.
        score: points: one per task, shared by its test inputs.
        score_ci: 95% bootstrap interval of the score over tasks.
        solved: number of test inputs with a right attempt.
        solved_share: share of solved test inputs.
        solved_share_ci: 95% bootstrap interval of this share over tasks.
        placeholders: as `count_placeholders` returns it, over the tasks that the submission has.
        missing: ids of tasks that the submission lacks.
        unknown: ids in the submission that belong to no task.
    """

    n_tasks: int
    n_tests: int
    score: float
    score_ci: tuple[float, float]
    solved: int
    solved_share: float
    solved_share_ci: tuple[float, float]
    placeholders: dict[str, int]
    missing: list[str]
    unknown: list[str]


def score(submission: str, tasks: str | None = None, json: str | None = None) -> SubmissionScore:
    """Score a submission as ARC does: a task is a point that its test inputs share, a right attempt of two solves one.

    Args:
        submission: a ``submission.json``.
        tasks: all tasks, with their outputs, in any form that ``data.tasks`` takes; must be given.
        json: a file that all figures are written to.

    Raises:
        DataError: names the invalid input, or a test input whose output is not known.
    """
    if json is not None:
        check_file(json, "json")
    if tasks is None:
        raise DataError(f"tasks: what is {submission} an answer to? Give --tasks")
    known = read_all_tasks(tasks)
    check_outputs(known, tasks)
    attempts = read_submission(submission, known, complete=False)
    if not attempts.keys() & known.keys():
        raise DataError(f"{submission}: none of its {len(attempts)} tasks is in {tasks}")
    # A task that cannot be read for the size of its grids is asked for, but cannot be scored.
    scored = score_submission({id_: two for id_, two in attempts.items() if id_ not in known.oversized}, known)
    if json is not None:
        write_json(json, vars(scored))
    print("\n".join(described(scored, submission)))
    return scored


def score_submission(attempts: Mapping[str, Sequence[tuple[Grid, Grid]]], tasks: Mapping[str, Task]) -> SubmissionScore:
    """Score attempts at tasks whose outputs are known.

    Args:
        attempts: by task id, two for each test input.
        tasks: all scored tasks, by id; a task without attempts gets no point.
    """
    pool = CandidatePool()
    queries = {e.key: e for task in tasks.values() for e in leave_one_out(task) if e.key.split == "test"}
    for key in queries:
        pool.open(key)
        for grid in attempts[key.task_id][key.index] if key.task_id in attempts else ():
            pool.add(key, Candidate(grid))
    evidence = gather(queries, pool, [])
    ids = [e.key.task_id for e in evidence]
    solved = np.array([e.solvable for e in evidence], float)
    points = np.array([solved[[i == task_id for i in ids]].mean() for task_id in tasks])
    low, high = bootstrap_interval(points, list(tasks))
    found = {id_: attempts[id_] for id_ in tasks if id_ in attempts}
    return SubmissionScore(
        n_tasks=len(tasks),
        n_tests=len(evidence),
        score=competition_score(evidence, [file_order(e) for e in evidence]),
        score_ci=(len(tasks) * low, len(tasks) * high),
        solved=int(solved.sum()),
        solved_share=float(solved.mean()),
        solved_share_ci=bootstrap_interval(solved, ids),
        placeholders=count_placeholders(
            {id_: [[g for g in two if not same_grid(g, NO_ANSWER)] for two in tests] for id_, tests in found.items()},
            {id_: tasks[id_] for id_ in found},
        ),
        missing=[id_ for id_ in tasks if id_ not in attempts],
        unknown=[id_ for id_ in attempts if id_ not in tasks],
    )


def check_outputs(tasks: Mapping[str, Task], name: str) -> None:
    """Refuse tasks that no submission can be scored by.

    Raises:
        DataError: names the first task without a test input, or whose output is not known.
    """
    for task_id, task in tasks.items():
        where = f"{name}: task {shortened(task_id)}"
        if not task.tests:
            raise DataError(f"{where}: has no test input, so it cannot be scored")
        for number, pair in enumerate(task.tests):
            if pair.output is None:
                raise DataError(
                    f"{where}: test[{number}]: its output is not known, so it cannot be scored; put the "
                    "solutions file beside the challenges file"
                )


def described(scored: SubmissionScore, name: str) -> list[str]:
    """Return the lines that describe a submission's score.

    Args:
        scored: the score.
        name: name of the submission's file.
    """
    n, m, of = scored.n_tasks, scored.n_tests, scored.placeholders
    share, (low, high), (least, most) = scored.score / n, scored.score_ci, scored.solved_share_ci
    blank = ATTEMPTS * of["no_candidate"] + of["one_candidate"]
    lines = [
        f"score        {scored.score:.2f} of {n} tasks, {share:.1%} (95% {100 * low / n:.1f} to {100 * high / n:.1f})",
        f"solved       {scored.solved} of {m} test inputs, {scored.solved_share:.1%} "
        f"(95% {100 * least:.1f} to {100 * most:.1f}, bootstrap over tasks)",
        f"placeholders {blank} of {ATTEMPTS * of['n_tests']} attempts are [[0]]",
        *explain_placeholders(of, name),
    ]
    for ids, what in (
        (scored.missing, f"of {n} tasks missing, each without a point"),
        (scored.unknown, "in the submission are none of the tasks, and passed over"),
    ):
        if ids:
            some = ", ".join(map(shortened, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")
            lines.append(f"{len(ids)} {what}: {some}")
    return lines
