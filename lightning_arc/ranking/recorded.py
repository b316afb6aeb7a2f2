"""Reading back the evidence that rankings left on disk."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_arc.arc import CandidatePool, Task, add_right_outputs, leave_one_out
from lightning_arc.arc.io.files import expand
from lightning_arc.errors import DataError
from lightning_arc.ranking.records import ViewScores, decode_scores
from lightning_arc.ranking.scores import CandidateScores, gather


def read_evidence(paths: Sequence[str]) -> list[ViewScores]:
    """Read records from journals.

    Args:
        paths: journals, or folders of journals of the same work.

    Raises:
        DataError: names a path without records, or a folder whose journals have different signatures.
    """
    records = []
    for path in map(expand, paths):
        files = sorted(path.glob("evidence-*.jsonl")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise DataError(f"{path}: no evidence-*.jsonl (evidence)")
        by_file = {file.name: file.read_bytes().splitlines() for file in files}
        headers = [_parsed(lines[0]) for lines in by_file.values() if lines]
        if any(header != headers[0] for header in headers):
            raise DataError(f"{path}: {', '.join(by_file)} are of different work; keep those of one model and dataset")
        lines = [line for lines in by_file.values() for line in lines]
        found = [record for line in lines if (record := decode_scores(_parsed(line))) is not None]
        if not found:
            raise DataError(f"{path}: holds no evidence")
        records += found
    return records


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def gather_pairs(
    tasks: Mapping[str, Task], pool: CandidatePool, records: Sequence[ViewScores], with_right_output: bool
) -> list[CandidateScores]:
    """Gather the records by pair, for each pair in them whose output is known.

    Raises:
        DataError: if records do not fit the candidates.
    """
    judged = {record.key for record in records}
    queries = {e.key: e for task in tasks.values() for e in leave_one_out(task) if e.key in judged}
    if with_right_output:
        add_right_outputs(pool, queries.values())
    misfits = [r.key for r in records if r.key in queries and len(r.log_odds) != len(pool[r.key])]
    if misfits:
        raise DataError(
            f"evidence: {len(misfits)} of {len(records)} records are not about these candidates, that of {misfits[0]} "
            "for one; the candidate files and with_right_output must be those of the ranking"
        )
    return [e for e in gather(queries, pool, records) if e.candidates and e.correct is not None]
