"""Builds a pool of candidates from any mix of solvers' files, checkpoints and distractors.

``python cli.py pool --config configs/pool_training.yaml``
"""

import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lightning_arc.arc import (
    Candidate,
    MergedPool,
    PairKey,
    Pool,
    PoolWriter,
    Task,
    leave_one_out,
    open_pool,
    read_tasks,
    same_grid,
)
from lightning_arc.arc.io.outputs import check_file
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.augment.views import key_seed
from lightning_arc.errors import DataError, OversizedLineError
from lightning_arc.folders import CONFIGS

CONFIG = CONFIGS / "generate.yaml"
"""The config that generators predict with."""

DISTRACTORS = "distractors"
"""Name of the source of candidates that are made from a task."""


@dataclass
class Generator:
    """A model that proposes candidates, as `configs/generate.yaml` says.

    Args:
        model_path: folder or hub name of the model, or ``bundled``; ``null`` for the checkpoint's, else ``bundled``.
        ckpt_path: a checkpoint of its training.
        options: further options of ``cli.py predict``, such as ``--data.n_views 2``.
    """

    model_path: str | None = None
    ckpt_path: str | None = None
    options: list[str] = field(default_factory=list)


@dataclass
class Counts:
    """The counts of a pool.

    Args:
        pairs: pairs of all tasks.
        without: pairs whose output is known and that have no wrong prediction.
        grids: distinct candidates.
        wrong: distinct candidates that are known to be wrong.
        right: pairs whose right output is among the candidates.
        cells_json: bytes of all candidates as compact JSON.
        sources: distinct candidates by source; a candidate of several sources counts for each.
    """

    pairs: int = 0
    without: int = 0
    grids: int = 0
    wrong: int = 0
    right: int = 0
    cells_json: int = 0
    sources: Counter[str] = field(default_factory=Counter)


def build_pool(
    tasks: str,
    out: str,
    candidates: list[str] | None = None,
    generators: list[Generator] | None = None,
    wrong_per_pair: int = 0,
    seed: int = 0,
) -> Counts:
    """Build a pool of candidates for every pair of some tasks, demonstrations included, and print its counts.

    Parquet pools among the candidates, and the generators' proposals, are read task by task while the pool is written.

    Args:
        tasks: the tasks, in any form that `read_tasks` takes.
        out: the Parquet file that is written.
        candidates: files of candidates of solvers, or pools; their votes add up, see `read_candidates` for files of the
            same solver.
        generators: models that propose candidates; their results are kept beside ``out``, and later runs continue them.
        wrong_per_pair: number of wrong predictions to which distractors fill up every pair with a known output.
        seed: seed of the distractors.

    Raises:
        DataError: names the invalid input.
    """
    if wrong_per_pair < 0:
        raise DataError(f"wrong_per_pair is {wrong_per_pair}, expected 0 or more")
    if seed < 0:
        raise DataError(f"seed is {seed}, expected 0 or more")
    if Path(out).suffix != ".parquet":
        raise DataError(f"{out}: expected a name that ends in .parquet (out)")
    check_file(out, "out")
    known = read_tasks(tasks)
    pools = [open_pool(candidates or [], known)]
    for number, generator in enumerate(generators or []):
        folder = Path(out).with_suffix("") / f"generator-{number}"
        generate(generator, tasks, folder)
        pools.append(open_pool(folder / "candidates.parquet", known))
    pool, counts = MergedPool(pools), Counts()
    with PoolWriter(out) as writer:
        for task in track(_valid(known), "writing", len(known), console=Console(stderr=True), transient=True):
            for key, found in filled(task, pool, wrong_per_pair, seed):
                writer.add(key, found)
                count(counts, task.pair(key).output is not None, found)
    print_counts(counts, out)
    return counts


def _valid(known: Mapping[str, Task]) -> Iterator[Task]:
    """Iterate over tasks; JSON lines with too large a grid are skipped, and counted at the end."""
    passed_over = 0
    for task_id in known:
        try:
            yield known[task_id]
        except OversizedLineError:
            passed_over += 1
    if passed_over:
        warnings.warn(f"tasks: {passed_over} of {len(known)} passed over, with too large a grid", stacklevel=2)


def generate(generator: Generator, tasks: str, folder: Path) -> None:
    """Let a model propose candidates for every pair, in a process of its own.

    Raises:
        DataError: if it fails; its own message stands above.
    """
    command = [sys.executable, "-m", "lightning_arc.cli", "predict", "--config", str(CONFIG)]
    command += ["--data.tasks", tasks, "--data.leave_one_out", "true"]
    command += ["--trainer.default_root_dir", str(folder)]
    command += ["--model.model_path", generator.model_path] if generator.model_path else []
    command += ["--ckpt_path", generator.ckpt_path] if generator.ckpt_path else []
    status = subprocess.run([*command, *generator.options]).returncode
    if status:
        name = generator.ckpt_path or generator.model_path or "bundled"
        raise DataError(f"generators: {name}: cli.py predict ended with status {status}")


def filled(task: Task, pool: Pool, wrong_per_pair: int, seed: int) -> Iterator[tuple[PairKey, list[Candidate]]]:
    """Iterate over all pairs of a task with their candidates, judged and filled up with distractors."""
    episodes = {episode.key: episode for episode in leave_one_out(task)}
    for key in task.keys():  # noqa: SIM118 - a task is no dict
        right, found = task.pair(key).output, list(pool[key])
        if right is not None:
            found = [candidate.judged(same_grid(candidate.grid, right)) for candidate in found]
            missing = wrong_per_pair - sum(not candidate.correct for candidate in found)
            if key in episodes and missing > 0:
                rng = np.random.default_rng([seed, key_seed(key)])
                grids = draw_distractors(rng, episodes[key], missing, exclude=[c.grid for c in found])
                found += [Candidate(grid, 1, (DISTRACTORS,), None, False) for grid in grids]
        yield key, found


def count(counts: Counts, known: bool, found: Sequence[Candidate]) -> None:
    """Add a pair's candidates to the counts."""
    wrong = sum(candidate.correct is False for candidate in found)
    counts.pairs += 1
    counts.without += known and not wrong
    counts.grids += len(found)
    counts.wrong += wrong
    counts.right += any(candidate.correct for candidate in found)
    for candidate in found:
        height, width = candidate.grid.shape
        counts.cells_json += height * (2 * width + 2) + 2
        counts.sources.update(candidate.sources)


def print_counts(counts: Counts, out: str) -> None:
    """Print what a pool holds."""
    table = Table(title=out, title_style="bold", show_header=False)
    size = Path(out).stat().st_size
    rows: Mapping[str, str] = {
        "pairs": f"{counts.pairs:,}",
        "distinct candidates": f"{counts.grids:,}",
        "distinct wrong predictions": f"{counts.wrong:,}",
        "wrong predictions a pair": f"{counts.wrong / max(counts.pairs, 1):.1f}",
        "pairs without a wrong prediction": f"{counts.without:,}",
        "pairs with the right output": f"{counts.right:,}",
        **{f"from {source}": f"{n:,}" for source, n in counts.sources.most_common()},
        "bytes": f"{size:,}",
        "bytes as JSON": f"{counts.cells_json:,} ({counts.cells_json / max(size, 1):.1f} times as many)",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=100).print(table)
