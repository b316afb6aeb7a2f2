"""The leak guard: finds judged tasks among training tasks, once for an unchanged file, and drops them."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track

from lightning_arc.arc.fingerprint import Leak, find_leaks
from lightning_arc.arc.io.files import expand, write_json
from lightning_arc.arc.task import Task, base_id
from lightning_arc.data.sources import Source, only
from lightning_arc.errors import DataError
from lightning_arc.folders import cache_folder

RULES = 2
"""Version of the rules by which leaks are found; results cached by another version are not used."""


def source_leaks(path: str, source: Source, judged: Sequence[Task], any_pair: bool = False) -> list[Leak]:
    """Find judged tasks among those of a source, with a progress bar.

    In JSON lines every line must be read, so the result is kept in the user's cache, by the file's path, size and
    modification time, the tasks that are taken from it, and the judged tasks.

    Args:
        path: where the source was read from.
        source: a training dataset.
        judged: validated or predicted tasks.
        any_pair: whether any pair in common is a leak, see `find_leaks`.
    """
    kept = _kept_at(expand(path), source, judged, any_pair) if path.lower().endswith(".jsonl") else None
    if kept is not None:
        with suppress(OSError, ValueError, TypeError):
            return [Leak(**leak) for leak in json.loads(kept.read_text())]
    tasks = track(
        source.tasks.valid(),
        f"looking for judged tasks in {path}",
        len(source.tasks),
        console=Console(stderr=True),
        transient=True,
    )
    leaks = find_leaks(tasks, judged, any_pair)
    if kept is not None:
        with suppress(DataError):  # without a cache the leaks are found again next time
            write_json(kept, [asdict(leak) for leak in leaks])
    return leaks


def refuse_leaks(paths: Sequence[str], found: Sequence[Sequence[Leak]]) -> None:
    """Raise a `DataError` that names the first source with leaks, and some of them."""
    for path, leaks in zip(paths, found, strict=True):
        if leaks:
            raise DataError(
                f"{leak_message(path, leaks)}; set data.drop_leaks: true to leave them out, data.allow_leaks: true to "
                "train anyway"
            )


def leak_message(path: str, leaks: Sequence[Leak]) -> str:
    """Return a line that counts the leaks of a source and names some of them."""
    some = ", ".join(f"{leak.trained} ({leak.reason} as {leak.judged})" for leak in leaks[:3])
    more = ", …" if len(leaks) > 3 else ""
    return f"{path}: {len(leaks)} tasks that are validated or predicted are trained with: {some}{more}"


def drop_leaks(sources: Sequence[Source], found: Sequence[Sequence[Leak]]) -> tuple[list[Source], list[Counter[str]]]:
    """Leave out the tasks that leak and, in every source, all tasks with the id of one.

    Tasks with one id, variations ``id#k`` and pools of pairs included, have one rule. A line number is no id; tasks
    named by it are left out one by one.

    Args:
        sources: training datasets.
        found: the leaks of each source.

    Returns:
        The sources without these tasks, and for each source the numbers of tasks left out, by reason.
    """
    named = {
        base_id(leak.trained)
        for source, leaks in zip(sources, found, strict=True)
        for leak in leaks
        if source.tasks.task(leak.trained).is_named
    }
    kept, reasons = [], []
    for source, leaks in zip(sources, found, strict=True):
        dropped = {leak.trained: leak.reason for leak in leaks}
        for task_id in source.tasks.ids:
            if base_id(task_id) in named:
                dropped.setdefault(task_id, "the id of one that leaks")
        kept.append(_without(source, dropped))
        reasons.append(Counter(dropped.values()))
    return kept, reasons


def _without(source: Source, dropped: Collection[str]) -> Source:
    """Return a source without the tasks of some ids."""
    return only(source, lambda task_id: task_id not in dropped)


def _kept_at(path: Path, source: Source, judged: Sequence[Task], any_pair: bool) -> Path:
    """Return the cache file of the leaks in these tasks."""
    facts = path.stat()
    digest = hashlib.sha256(
        json.dumps([RULES, any_pair, str(path.resolve()), facts.st_size, facts.st_mtime_ns]).encode()
    )
    digest.update("\0".join(source.tasks.ids).encode())
    for task in judged:
        digest.update(json.dumps([task.id, task.is_named, task.is_pair_generator, len(task.demonstrations)]).encode())
        for pair in (*task.demonstrations, *task.tests):
            for grid in (pair.input, pair.output):
                digest.update(b"-" if grid is None else bytes(grid.shape) + grid.tobytes())
    return cache_folder() / "leaks" / f"{digest.hexdigest()[:32]}.json"
