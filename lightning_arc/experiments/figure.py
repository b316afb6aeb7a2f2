"""The figure of an experiment: the loss in training, and the measures at the end."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.io.files import whole_file

LOSS = "train/output-from-examples/loss"
"""The logged loss of written outputs."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#f0e442")
"""Colours that people of any colour vision can tell apart (Okabe and Ito, 2008)."""

SHOWN = ("AUROC likelihood", "AUROC mismatches", "AUROC verdict", "top-2 likelihood", "top-2 verdict")
"""Measures that are drawn, from 0 to 1."""


def losses(trained: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the steps at which a training logged its loss, ``(n,)``, and the losses; none if it has no log."""
    # Imported here, because it takes a second and most of this package does not need it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[int, float] = {}
    for folder in sorted({path.parent for path in trained.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        if LOSS in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars(LOSS)}
    steps = sorted(found)
    return np.array(steps, np.int64), np.array([found[step] for step in steps], float)


def draw(path: Path, trained: Mapping[str, Sequence[Path]], arms: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the mean loss of each arm with the range of its seeds, and the measures with their intervals.

    Args:
        path: the SVG file that is written.
        trained: folders of each arm's trainings.
        arms: of each arm, by measure, ``mean`` and ``interval``.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    for (arm, folders), colour in zip(trained.items(), COLOURS * len(trained), strict=False):
        curves = [curve for folder in folders if len((curve := losses(folder))[0])]
        if not curves:
            continue
        steps = sorted(set.intersection(*(set(at.tolist()) for at, _ in curves)))
        table = np.array([loss[np.isin(at, steps)] for at, loss in curves])
        left.plot(steps, table.mean(0), color=colour, label=arm)
        left.fill_between(steps, table.min(0), table.max(0), color=colour, alpha=0.2, linewidth=0)
    left.set(xlabel="step", ylabel="nats a token of written outputs, in training", yscale="log")
    left.legend(frameon=False)
    for i, (arm, colour) in enumerate(zip(arms, COLOURS * len(arms), strict=False)):
        means = np.array([arms[arm][m]["mean"] for m in SHOWN])
        ends = np.array([arms[arm][m]["interval"] for m in SHOWN]).T
        places = np.arange(len(SHOWN)) + (i - (len(arms) - 1) / 2) * 0.8 / len(arms)
        right.errorbar(means, places, xerr=np.abs(ends - means), fmt="os^Dv"[i % 5], color=colour, label=arm, capsize=2)
    right.set(yticks=range(len(SHOWN)), yticklabels=SHOWN, xlim=(0, 1))
    right.invert_yaxis()
    right.grid(axis="x", alpha=0.3)
    drawn = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    with whole_file(path) as temporary:
        temporary.write_bytes(drawn.getvalue())
