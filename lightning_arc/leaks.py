"""The leak guard: whether tasks that are judged are among those of a source, found once for a file that stays as it is.

Knows sources, fingerprints and the user's cache. Knows nothing of settings, loaders or models.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track

from lightning_arc.arc.files import expand, write_json
from lightning_arc.arc.fingerprint import Leak, find_leaks
from lightning_arc.arc.grid import DataError
from lightning_arc.arc.task import Task
from lightning_arc.sources import Source

RULES = 1
"""Number of the rules by which leaks are found; what was kept by others is found anew."""


def source_leaks(path: str, source: Source, judged: Sequence[Task]) -> list[Leak]:
    """Find judged tasks among those of a source, with a progress bar.

    What is found in JSON lines, every one of which must be read, is kept in the user's cache by the file's path, size
    and time of change, the tasks that are taken from it, and the judged ones.

    Args:
        path: where the source was read from.
        source: what is trained with.
        judged: what is validated or predicted.
    """
    kept = _kept_at(expand(path), source, judged) if path.lower().endswith(".jsonl") else None
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
    leaks = find_leaks(tasks, judged)
    if kept is not None:
        with suppress(DataError):  # without a place to keep it, it is found again
            write_json(kept, [asdict(leak) for leak in leaks])
    return leaks


def _kept_at(path: Path, source: Source, judged: Sequence[Task]) -> Path:
    """Return the file of the cache that holds what was found in the same tasks."""
    facts = path.stat()
    digest = hashlib.sha256(json.dumps([RULES, str(path.resolve()), facts.st_size, facts.st_mtime_ns]).encode())
    digest.update("\0".join(source.tasks.ids).encode())
    for task in judged:
        digest.update(json.dumps([task.id, task.is_named, task.is_pool, len(task.demonstrations)]).encode())
        for pair in (*task.demonstrations, *task.tests):
            for grid in (pair.input, pair.output):
                digest.update(b"-" if grid is None else bytes(grid.shape) + grid.tobytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "lightning_arc" / "leaks" / f"{digest.hexdigest()[:32]}.json"
