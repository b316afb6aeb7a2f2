"""The results of an experiment: measures of each arm with intervals, a table and a figure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc import read_candidates, read_tasks
from lightning_arc.arc.io.files import whole_file, write_json
from lightning_arc.errors import DataError
from lightning_arc.experiments.figure import draw
from lightning_arc.ranking.metrics import bootstrap_interval, hits, within_aurocs
from lightning_arc.ranking.rankers import RANKERS
from lightning_arc.ranking.recorded import gather_pairs, read_evidence
from lightning_arc.ranking.scores import CandidateScores

MEASURES = {
    "nats a cell": "negative log-likelihood of the right output, divided by its number of cells",
    "exact": "share of right outputs that greedy decoding would write",
    "AUROC likelihood": "share of a pair's wrong candidates that are less likely than the right one; ties count half",
    "AUROC mismatches": "the same by the number of tokens that are not the likeliest",
    "AUROC verdict": "the same by the log-odds of the verdict",
    "top-2 likelihood": "share of pairs whose right output is among the two likeliest candidates",
    "top-2 verdict": "the same by the verdict",
}
"""Measures of each pair, with their meanings."""


SEEDS = 3
"""How many seeds must agree before a difference is claimed."""


@dataclass(frozen=True)
class Ranked:
    """A run of an arm.

    Args:
        seed: seed of its training.
        trained: folder of the training.
        ranking: folder of the ranking.
    """

    seed: int
    trained: Path
    ranking: Path


@dataclass(frozen=True)
class Difference:
    """A difference between two arms, paired by pairs of tasks.

    Args:
        mean: mean difference over all pairs and seeds.
        interval: 95% bootstrap interval over tasks.
        agrees: whether every seed's own difference has the sign of the mean.
        seeds: number of seeds.
    """

    mean: float
    interval: tuple[float, float]
    agrees: bool
    seeds: int

    @property
    def holds(self) -> bool:
        """Whether it may be claimed: its interval excludes 0, and all seeds, at least `SEEDS`, agree."""
        low, high = (round(bound, 9) for bound in self.interval)  # a bound of 0 is computed as about 1e-18
        return self.seeds >= SEEDS and self.agrees and (low > 0 or high < 0)


def measures(evidence: Sequence[CandidateScores]) -> dict[str, NDArray[np.float64]]:
    """Return each of the `MEASURES`, ``(pairs,)``, of judged pairs that have both a right and a wrong candidate.

    Args:
        evidence: one per pair.
    """
    found: dict[str, NDArray[np.float64]] = {}
    right = [e.right_place for e in evidence]
    cells = np.array([e.candidates[i].grid.size for e, i in zip(evidence, right, strict=True)], float)
    found["nats a cell"] = (
        -np.array([e.log_likelihood[:, i].mean() for e, i in zip(evidence, right, strict=True)]) / cells
    )
    mismatches = np.array([e.mismatches[:, i].mean() for e, i in zip(evidence, right, strict=True)])
    found["exact"] = (mismatches == 0).astype(float)
    for name, ranker in (("likelihood", "likelihood"), ("mismatches", "mismatches"), ("verdict", "verifier")):
        rankings = [RANKERS[ranker].rank(e) for e in evidence]
        found[f"AUROC {name}"] = within_aurocs(evidence, rankings)
        if f"top-2 {name}" in MEASURES:
            found[f"top-2 {name}"] = hits(evidence, rankings, 2).astype(float)
    return {name: found[name] for name in MEASURES}


def difference(one: NDArray[np.float64], other: NDArray[np.float64], tasks: Sequence[str]) -> Difference:
    """Return ``other`` minus ``one``, each ``(seeds, pairs)``, of the same seeds and pairs."""
    each = other - one
    mean = float(each.mean())
    agrees = bool((np.sign(each.mean(1)) == np.sign(mean)).all())
    return Difference(mean, bootstrap_interval(each.mean(0), tasks), agrees, len(each))


def write_report(
    out: Path,
    name: str,
    question: str,
    command: str,
    runs: Mapping[str, Sequence[Ranked]],
    data: Mapping[str, Any],
    notes: str,
) -> None:
    """Write the results of an experiment.

    Args:
        out: folder of the results.
        name: name of the experiment.
        question: the question that it asks.
        command: the command that repeats it.
        runs: by arm, at least one run.
        data: ``tasks``, ``candidates`` and ``with_right_output`` of the rankings.
        notes: further text below the table.

    Raises:
        DataError: if there is no pair that all runs judged, or evidence does not fit the candidates.
    """
    seeds = sorted(set.intersection(*({run.seed for run in arm} for arm in runs.values())))
    if not seeds:
        raise DataError(f"{name}: no seed that all arms have been run with")
    runs = {arm: [run for run in of_arm if run.seed in seeds] for arm, of_arm in runs.items()}
    judged = {arm: [_evidence(run, data) for run in of_arm] for arm, of_arm in runs.items()}
    keys = sorted(set.intersection(*(set(found) for of_arm in judged.values() for found in of_arm)))
    if not keys:
        raise DataError(f"{name}: no pair that every run judged")
    tasks = [key.task_id for key in keys]
    by_run = {arm: [measures([found[key] for key in keys]) for found in of_arm] for arm, of_arm in judged.items()}
    values = {arm: {m: np.stack([one[m] for one in of_arm]) for m in MEASURES} for arm, of_arm in by_run.items()}
    first, *others = runs
    figures: dict[str, Any] = {"question": question, "seeds": seeds, "pairs": len(keys), "tasks": len(set(tasks))}
    figures["arms"] = {
        arm: {
            m: {
                "mean": float(of_arm[m].mean()),
                "interval": list(bootstrap_interval(of_arm[m].mean(0), tasks)),
                "seeds": of_arm[m].mean(1).tolist(),
            }
            for m in MEASURES
        }
        for arm, of_arm in values.items()
    }
    figures["cost"] = {arm: _cost(of_arm) for arm, of_arm in runs.items()}
    against = {arm: {m: difference(values[first][m], values[arm][m], tasks) for m in MEASURES} for arm in others}
    figures["differences"] = {
        arm: {m: {"mean": d.mean, "interval": list(d.interval), "seeds agree": d.agrees} for m, d in found.items()}
        for arm, found in against.items()
    }
    write_json(out / f"{name}.json", figures)
    draw(out / f"{name}.svg", {arm: [run.trained for run in of_arm] for arm, of_arm in runs.items()}, figures["arms"])
    with whole_file(out / f"{name}.md") as path:
        path.write_text(_page(name, question, command, figures, against, notes), encoding="utf-8")
    print(f"written: {out / name}.md, .svg, .json")


def _evidence(run: Ranked, data: Mapping[str, Any]) -> dict[Any, CandidateScores]:
    """Return, by key, the evidence about pairs with right and wrong candidates that were judged in all views."""
    records = read_evidence([str(run.ranking)])
    ids = {record.key.task_id for record in records}
    tasks = {task_id: task for task_id, task in read_tasks(data["tasks"]).items() if task_id in ids}
    pool = read_candidates(data["candidates"], tasks)
    found = gather_pairs(tasks, pool, records, data.get("with_right_output", False))
    return {e.key: e for e in found if e.mixed and len(e.log_likelihood) and np.isfinite(e.log_likelihood).all()}


def _cost(runs: Sequence[Ranked]) -> dict[str, float]:
    """Return the mean seconds and tokens of a ranking."""
    methods = [json.loads((run.ranking / "metrics.json").read_text())["methods"]["likelihood"] for run in runs]
    tokens = [m["prefix_tokens"] + m["branch_tokens"] + m["test_time_tokens"] for m in methods]
    return {"seconds": float(np.mean([m["seconds"] for m in methods])), "tokens": float(np.mean(tokens))}


def _page(
    name: str,
    question: str,
    command: str,
    figures: Mapping[str, Any],
    against: Mapping[str, Mapping[str, Difference]],
    notes: str,
) -> str:
    seeds = ", ".join(map(str, figures["seeds"]))
    arms, (first, *_) = figures["arms"], figures["arms"]
    lines = [
        f"# {question}",
        "",
        "```",
        command,
        "```",
        "",
        f"Measured on {figures['pairs']} pairs of {figures['tasks']} held-out training tasks; the candidates are the "
        f"right output and a solver's wrong ones. Seeds: {seeds}. Each cell: mean, 95% bootstrap interval over tasks, "
        "and the mean of each seed.",
        "",
        f"| | {' | '.join(arms)} |",
        f"| --- | {' | '.join('---:' for _ in arms)} |",
    ]
    for measure in MEASURES:
        cells = [_cell(arms[arm][measure]) for arm in arms]
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    costs = [f"{c['tokens']:,.0f} tokens, {c['seconds']:,.0f} s" for c in figures["cost"].values()]
    lines += [f"| the ranking | {' | '.join(costs)} |", ""]
    lines += [
        f"Differences from *{first}*, paired by input-output pair. **Bold**: the interval excludes 0, and all seeds "
        f"agree, at least {SEEDS}.",
        "",
    ]
    lines += [f"| | {' | '.join(against)} |", f"| --- | {' | '.join('---:' for _ in against)} |"]
    for measure in MEASURES:
        lines.append(f"| {measure} | {' | '.join(_difference(found[measure]) for found in against.values())} |")
    lines += ["", f"![{question}]({name}.svg)", ""]
    lines += [f"- *{measure}*: {meaning}" for measure, meaning in MEASURES.items()]
    return "\n".join([*lines, *(["", notes.strip()] if notes.strip() else []), ""])


def _cell(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['mean']:.3f} ({low:.3f} to {high:.3f}) {', '.join(f'{x:.3f}' for x in found['seeds'])}"


def _difference(found: Difference) -> str:
    text = f"{found.mean:+.3f} ({found.interval[0]:+.3f} to {found.interval[1]:+.3f})"
    return f"**{text}**" if found.holds else text
