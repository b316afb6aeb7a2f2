"""Reading back the evidence that rankings left on disk.

Knows journals of evidence. Knows nothing of tasks, candidates or rankers, or of who recorded it.
"""

import json
from collections.abc import Sequence

from lightning_arc.arc import DataError
from lightning_arc.arc.files import expand
from lightning_arc.ranking.records import ViewEvidence, decode_evidence


def read_evidence(paths: Sequence[str]) -> list[ViewEvidence]:
    """Read records from journals, whatever they were made with.

    Raises:
        DataError: names a path that has none.
    """
    records = []
    for path in map(expand, paths):
        files = sorted(path.glob("evidence-*.jsonl")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise DataError(f"{path}: no evidence-*.jsonl (evidence)")
        lines = [line for file in files for line in file.read_bytes().splitlines()]
        found = [record for line in lines if (record := _decoded(line)) is not None]
        if not found:
            raise DataError(f"{path}: holds no evidence")
        records += found
    return records


def _decoded(line: bytes) -> ViewEvidence | None:
    try:
        return decode_evidence(json.loads(line))
    except (ValueError, RecursionError):
        return None
