"""Where tasks come from: folders, zips and files of every form, as entries whose content is not yet checked."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lightning_arc.arc.io.files import json_files, parse_json, read_json, sub_folders
from lightning_arc.arc.io.zip_members import json_members
from lightning_arc.errors import DataError, shortened

NO_TASK_FILES = ("metadata.json",)
"""Files that RE-ARC's folder holds beside those of tasks."""


class Entry(NamedTuple):
    """A task's unchecked content in a file.

    Args:
        task_id: the task's name.
        value: the task as JSON holds it.
        where: the file's name in messages.
        outputs: the task's outputs in a solutions file, and that file's name in messages; ``None`` without one.
    """

    task_id: str
    value: Any
    where: str
    outputs: tuple[Any, str] | None = None


def folder_entries(path: Path) -> Iterator[Entry]:
    """Iterate over the tasks of a folder, or of the folders in it if it has no task files itself.

    Raises:
        DataError: names what cannot be read, or which file to give instead.
    """
    # RE-ARC's folder holds its files in "tasks", and a "metadata.json" beside it.
    for folder in (path, path / "tasks", path / "re_arc" / "tasks"):
        if folder.is_dir() and _task_files(folder):
            yield from _one_folder(folder)
            return
    for folder in sub_folders(path):
        yield from _one_folder(folder)


def zip_entries(path: Path) -> Iterator[Entry]:
    """Iterate over the tasks of a zip file, whatever folders they lie in.

    Raises:
        DataError: names what cannot be read.
    """
    for name, content in json_members(path):
        file = Path(name)
        if _is_task_file(file):
            where = f"{path}:{shortened(name)}"
            value = parse_json(content, where)
            if _is_challenges(value):
                raise DataError(f"{where}: holds {len(value)} tasks by id; unpack it and give that file")
            yield from _expand(file.stem, value, where)


def file_entries(path: Path) -> Iterator[Entry]:
    """Iterate over the tasks of a JSON file.

    Raises:
        DataError: if it cannot be read or holds something else.
    """
    content, where = read_json(path), str(path)
    if isinstance(content, list) and content:
        _refuse_others(path, {path.stem: content})
        yield from _expand(path.stem, content, where)
        return
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object of tasks by id")
    if isinstance(content.get("train"), list) and ("test" in content or "n_train" in content):
        yield Entry(path.stem, content, where)
        return
    _refuse_others(path, content)
    sibling = path.with_name(path.name.replace("challenges", "solutions"))
    if sibling == path or not sibling.is_file():
        for task_id, value in content.items():
            yield from _expand(task_id, value, where)
        return
    solutions = read_json(sibling)
    if not isinstance(solutions, dict):
        raise DataError(f"{sibling}: expected an object of lists of outputs by task id")
    for task_id, value in content.items():
        yield Entry(task_id, value, where, (solutions.get(task_id), str(sibling)))


def is_named(value: Any) -> bool:
    """Whether a value is a task with its name beside it, ``{"name": …, "data": task}``, as BARC writes them."""
    return isinstance(value, dict) and isinstance(value.get("name"), str) and "data" in value


def name_of(value: dict[str, Any]) -> str:
    """Return the task id of a value that `is_named`."""
    return value["name"].removesuffix(".json")


def _one_folder(folder: Path) -> Iterator[Entry]:
    """Iterate over the tasks of a folder's files, or of the challenges file where it is a competition's folder."""
    files = _task_files(folder)
    about = {file: _kaggle_kind(file) for file in files}
    if files and all(about.values()):
        yield from file_entries(
            _challenges_file(folder, [file for file, kind in about.items() if kind == "challenges"])
        )
        return
    for file in files:
        value = read_json(file)
        if _is_challenges(value):
            raise DataError(
                f"{file}: holds {len(value)} tasks by id, where a folder's files hold one each; give this file"
            )
        yield from _expand(file.stem, value, str(file))


def _challenges_file(folder: Path, files: list[Path]) -> Path:
    if len(files) == 1:
        return files[0]
    if files:
        raise DataError(f"{folder}: holds {len(files)} challenges files, give one of them: {_names(files)}")
    raise DataError(f"{folder}: holds only solutions and submissions ({_names(_task_files(folder))}) and no tasks")


def _kaggle_kind(file: Path) -> str | None:
    """Return the kind of a file in a competition's folder, as its name tells."""
    return next((kind for kind in ("challenges", "solutions", "submission") if kind in file.stem), None)


def _refuse_others(path: Path, content: dict[str, Any]) -> None:
    """Refuse solutions, submissions and candidates, and say which file holds their tasks."""
    value = next((value for value in content.values() if value), None)
    first = value[0] if isinstance(value, list) else None
    if isinstance(first, dict) and any(name.startswith("attempt_") for name in first) and "input" not in first:
        kind = "attempts, as submissions and candidates do,"
    elif isinstance(first, list) and first and isinstance(first[0], list):
        is_grid = all(not isinstance(cell, list) for cell in first[0])
        kind = "outputs, as solutions do," if is_grid else "lists of grids, as candidates do,"
    else:
        return
    beside = [file for file in json_files(path.parent) if _kaggle_kind(file) == "challenges"]
    partner = path.with_name(path.name.replace("solutions", "challenges"))
    beside = [partner] if partner in beside else beside
    hint = f"give {' or '.join(file.name for file in beside[:3])}" if beside else "give the file with their tasks"
    raise DataError(f"{path}: holds {kind} and no tasks; {hint}")


def _is_challenges(value: Any) -> bool:
    """Whether a value is an object of tasks by id."""
    if not isinstance(value, dict) or not value or "train" in value:
        return False
    return all(isinstance(task, dict) and "train" in task for task in value.values())


def _expand(task_id: str, value: Any, where: str) -> Iterator[Entry]:
    """Iterate over the task of a value, over its variations, or over tasks with their names beside them."""
    if isinstance(value, list) and value and is_named(value[0]):
        yield from _named(value, where)
    elif isinstance(value, list) and value and all(isinstance(one, dict) and "train" in one for one in value):
        for i, variation in enumerate(value):
            yield Entry(f"{task_id}#{i}", variation, where)
    else:
        yield Entry(task_id, value, where)


def _named(values: list[Any], where: str) -> Iterator[Entry]:
    """Iterate over tasks with their names; several of one name are its variations."""
    for i, value in enumerate(values):
        if not is_named(value):
            raise DataError(f"{where}: [{i}]: expected an object with a name and data")
    counts, seen = Counter(map(name_of, values)), Counter[str]()
    for value in values:
        name = name_of(value)
        yield Entry(name if counts[name] == 1 else f"{name}#{seen[name]}", value["data"], where)
        seen[name] += 1


def _task_files(folder: Path) -> list[Path]:
    return [file for file in json_files(folder) if _is_task_file(file)]


def _is_task_file(file: Path) -> bool:
    return file.name not in NO_TASK_FILES and not file.name.startswith(".")


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:6]) + (", …" if len(files) > 6 else "")
