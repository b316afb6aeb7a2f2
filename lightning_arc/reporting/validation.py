"""Results of a validation: a table with counts and intervals, and a reliability diagram."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from lightning_arc.model.validation_metrics import VERDICTS, VERIFY_TAG, Sample
from lightning_arc.ranking.metrics import bootstrap_auroc, bootstrap_interval
from lightning_arc.reporting.calibration_charts import BINS, wilson_interval

WIDTH = 100
"""Least columns of the table where there is no terminal."""

SHARES = ("accuracy", "exact_match", "top1", "top2", "minus_vote")
"""Suffixes of the names of figures that are shown in percent."""


def validation_rows(
    found: Mapping[str, float], samples: Mapping[str, Sample], tasks: Sequence[str]
) -> list[tuple[str, str, str, str]]:
    """Return one row per figure: its name, value, 95% interval, and the number and kind of values it is a mean of.

    Args:
        found: the figures by their logged names.
        samples: the samples of `ValidationMetrics`.
        tasks: the task id of each validation episode; intervals resample whole tasks.
    """
    rows = []
    for name, value in sorted(found.items()):
        percent = name.endswith(SHARES)
        low_high, n = _interval(name, samples, tasks)
        form = "{:+.1%}" if name.endswith("minus_vote") else "{:.1%}" if percent else "{:.3f}"
        between = "" if low_high is None else " to ".join(form.format(x) for x in low_high)
        rows.append((name, form.format(value), between, n))
    return rows


def print_validation(found: Mapping[str, float], samples: Mapping[str, Sample], tasks: Sequence[str]) -> None:
    """Print the table of `validation_rows`."""
    console = Console()
    console = console if console.is_terminal else Console(width=max(console.width, WIDTH))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("figure", overflow="fold")
    for name in ("value", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in validation_rows(found, samples, tasks):
        table.add_row(*row)
    console.print(table)
    if samples:
        console.print("Intervals: bootstrap over tasks; Wilson's where all or none are right.", highlight=False)


def draw_reliability(p: NDArray[np.float64], right: NDArray[np.bool_]) -> Figure:
    """Draw a reliability diagram, with a 95% interval for each tenth.

    Args:
        p: ``(n,)`` probabilities.
        right: ``(n,)`` whether each candidate is right.
    """
    figure = Figure(figsize=(5, 5), dpi=100, layout="tight")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], linestyle="--", color="#999999", label="p comes true")
    place = np.minimum((np.clip(p, 0, 1) * BINS).astype(int), BINS - 1)
    means, shares, ranges = [], [], []
    for number in np.unique(place):
        inside = place == number
        hits, n = int(right[inside].sum()), int(inside.sum())
        low, high = wilson_interval(hits, n)
        means.append(p[inside].mean())
        shares.append(hits / n)
        ranges.append((max(0.0, hits / n - low), max(0.0, high - hits / n)))
        axes.annotate(f"{n:,}", (means[-1], shares[-1]), xytext=(6, -12), textcoords="offset points", fontsize=8)
    axes.errorbar(means, shares, yerr=np.array(ranges).T, fmt="o", label="verdicts, with 95% intervals")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="p, mean of a tenth", ylabel="share that is right")
    axes.set_title(f"Does p come true? {len(p):,} verdicts")
    axes.legend(loc="upper left", fontsize=8)
    return figure


def _interval(name: str, samples: Mapping[str, Sample], tasks: Sequence[str]) -> tuple[tuple[float, float] | None, str]:
    """Return a figure's interval and the values it is a mean of, in words, as far as known."""
    parts = name.split("/")
    sample, measure = samples.get(parts[1]), parts[-1]
    if parts[1] == "ranking":
        method, _, measure = parts[2].removesuffix("_minus_vote").rpartition("_")
        sample = samples.get(method)
        unit = "test inputs"
    elif parts[1] == VERIFY_TAG:
        sample, unit = samples.get(VERDICTS), "verdicts"
    else:
        unit = "prompts"
    if sample is None:
        return None, ""
    n, groups = f"{len(sample.values):,} {unit}", [tasks[i] for i in sample.episodes]
    if measure == "auroc":
        return bootstrap_auroc(sample.values, sample.others.astype(bool), groups), n
    values = {
        "top1": sample.values,
        "top2": sample.others,
        "exact_match": sample.values,
        "accuracy": (sample.values > 0) == (sample.others == 1),
    }.get(measure)
    if values is None:
        return None, n
    if name.endswith("_minus_vote"):
        votes = samples["vote"]
        values = values - (votes.values if measure == "top1" else votes.others)
    values = np.asarray(values, float)
    if not name.endswith("_minus_vote") and values.mean() in (0.0, 1.0):  # resampling would give no other share
        n_tasks = len(set(groups))
        return wilson_interval(int(values.mean()) * n_tasks, n_tasks), n
    return bootstrap_interval(values, groups), n
