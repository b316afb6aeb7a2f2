"""Where tasks come from: folders of folders, competition folders, lists with names, and what is no file of tasks."""

import json
import os
import re
import zipfile

import pytest

from lightning_arc.arc import read_tasks
from lightning_arc.arc.io.tasks import TaskWarning, read_all_tasks
from lightning_arc.errors import DataError, LineError, OversizedError

PAIR = {"input": [[0, 1]], "output": [[1, 0]]}
TASK = {"train": [PAIR, PAIR], "test": [{"input": [[2, 2]]}]}
OTHER = {"train": [PAIR], "test": [{"input": [[3]]}]}
LARGE = {"input": [[0] * 32], "output": [[1]]}


def refused(source, *parts: str, **options) -> str:
    with pytest.raises(DataError) as error:
        read_all_tasks(source, **options)
    message = str(error.value)
    assert message.startswith(f"{source}") and "\n" not in message
    assert all(part in message for part in parts), message
    return message


def test_a_folder_without_task_files_is_read_one_level_down(tmp_path, write):
    write("corpus/B/b1.json", TASK)
    write("corpus/A/a2.json", TASK)
    write("corpus/A/a1.json", OTHER)
    write("corpus/.git/x.json", "no JSON")
    write("corpus/A/deep/c.json", "no JSON")
    (tmp_path / "corpus" / "empty").mkdir()
    assert list(read_tasks(tmp_path / "corpus")) == ["a1", "a2", "b1"]
    write("corpus/own.json", TASK)
    assert list(read_tasks(tmp_path / "corpus")) == ["own"]


def test_one_task_in_two_folders_is_read_once_and_two_of_one_id_are_refused_by_both_files(tmp_path, write):
    one, other = write("tasks/A/a.json", TASK), write("tasks/B/a.json", TASK)
    assert list(read_tasks(tmp_path / "tasks")) == ["a"]
    write("tasks/B/a.json", OTHER)
    refused(tmp_path / "tasks", f": task a: stands twice, in {one} and in {other}")


def test_a_competition_folder_gives_its_challenges_with_their_solutions(tmp_path, write):
    write("kaggle/arc-agi_test_challenges.json", {"a": TASK})
    write("kaggle/sample_submission.json", {"a": [{"attempt_1": [[0, 0]], "attempt_2": [[0, 0]]}]})
    folder = tmp_path / "kaggle"
    assert read_tasks(folder)["a"].tests[0].output is None
    write("kaggle/arc-agi_test_solutions.json", {"a": [[[7]]]})
    assert read_tasks(folder)["a"].tests[0].output.tolist() == [[7]]
    write("kaggle/arc-agi_training_challenges.json", {"b": TASK})
    both = "arc-agi_test_challenges.json, arc-agi_training_challenges.json"
    refused(folder, f": holds 2 challenges files, give one of them: {both}")
    for file in folder.glob("*challenges*"):
        file.unlink()
    refused(folder, "holds only solutions and submissions (arc-agi_test_solutions.json, sample_submission.json)")


def test_what_is_no_file_of_tasks_is_named_with_the_file_to_give(tmp_path, write):
    solutions = write("k/x_solutions.json", {"a": [[[7]]], "b": [None]})
    sample = write("k/sample_submission.json", {"a": [{"attempt_1": [[0]], "attempt_2": [[0]]}]})
    refused(solutions, "holds outputs, as solutions do, and no tasks; give the file with their tasks")
    write("k/x_challenges.json", {"a": TASK})
    write("k/y_challenges.json", {"a": TASK})
    refused(solutions, "holds outputs, as solutions do, and no tasks; give x_challenges.json")
    refused(sample, "holds attempts, as submissions and candidates do, and no tasks; give x_challenges.json or y_")
    refused(write("c.json", {"a": [[[[0]], [[1]]]]}), "holds lists of grids, as candidates do, and no tasks")
    refused(write("benchmark/a.json", [{"attempt_1": {"answer": [[0]]}}]), "holds attempts")
    many = write("folder/many.json", {"a": TASK, "b": TASK})
    with pytest.raises(DataError, match=f"^{re.escape(str(many))}: holds 2 tasks by id, .*give this file$"):
        read_tasks(many.parent)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        archive.write(many, "many.json")
    refused(tmp_path / "many.zip", "many.json: holds 2 tasks by id; unpack it and give that file")


def test_lists_of_tasks_with_names_are_read_and_equal_names_are_variations(tmp_path, write):
    named = [{"name": f"{name}.json", "data": task} for name, task in (("a", TASK), ("b", TASK), ("a", OTHER))]
    path = write("barc.json", named)
    assert list(read_tasks(path)) == ["a#0", "b", "a#1"]
    lines = write("barc.jsonl", "".join(json.dumps(one) + "\n" for one in named[:2]))
    tasks = read_tasks(lines)
    assert list(tasks) == ["a", "b"] and len(tasks["b"].demonstrations) == 2 and tasks["a"].is_named
    refused(write("bad.json", [*named, {"name": "c"}]), ": [3]: expected an object with a name and data")
    refused(write("worse.json", [{"name": "c", "data": "text"}]), ": task c: expected an object with train and test")


@pytest.mark.parametrize(
    "large",
    [
        {"train": [PAIR, LARGE], "test": [PAIR, PAIR]},
        {"train": [PAIR], "test": [PAIR, LARGE]},
        {"train": [PAIR], "test": [PAIR, PAIR | {"output": [[0]] * 31}]},
        {"train": [PAIR, PAIR, LARGE], "n_train": 1},
    ],
)
def test_tasks_with_too_large_a_grid_are_passed_over_and_counted_with_their_test_inputs(write, large):
    for name, task in {"a": TASK, "large": large, "z": TASK}.items():
        folder = write(f"tasks/{name}.json", task).parent
    with pytest.warns(TaskWarning) as warned:
        tasks = read_all_tasks(folder)
    assert list(tasks) == ["a", "z"] and tasks.oversized == {"large": 2}
    message = f"{folder}: 1 of 3 tasks passed over, with a grid of more than 30 rows or columns: large "
    assert [str(warning.message).startswith(message) for warning in warned] == [True]
    refused(folder, "large.json: task large: ", "sides must be 1 to 30", "data.oversized_tasks", oversized="error")
    refused(folder / "large.json", "sides must be 1 to 30")


def test_large_outputs_in_a_solutions_file_and_many_large_tasks_are_passed_over(write):
    path = write("x_challenges.json", {f"t{i}": TASK for i in range(6)})
    write("x_solutions.json", {f"t{i}": [[[0] * (31 if i else 30)]] for i in range(6)})
    with pytest.warns(TaskWarning, match=r": 5 of 6 tasks passed over, .*: t1, t2, t3, … "):
        assert read_all_tasks(path).oversized == {f"t{i}": 1 for i in range(1, 6)}


def test_what_is_wrong_in_another_way_is_refused_however_large(write):
    refused(write("a.json", {"a": {"train": [PAIR], "test": [{"input": [[0] * 32, [0]]}]}, "b": TASK}), "row 1 has 1")
    refused(write("b.json", {"a": {"train": [LARGE]}, "b": TASK}), "task a: test: expected a list of pairs")


def test_lines_with_too_large_a_grid_are_passed_over_when_they_are_read(write):
    lines = [{"train": [PAIR], "test": [LARGE]}, TASK, {"examples": [[[[0] * 31], [[1]]]]}]
    path = write("t.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    tasks = read_tasks(path)
    with pytest.raises(LineError, match=r"^\S+t.jsonl:1: task t:1: test\[0\].input is 1 x 32"):
        tasks["t:1"]
    with pytest.warns(TaskWarning, match=": 2 of 3 tasks passed over"):
        read = read_all_tasks(path)
    assert list(read) == ["t:2"] and read.oversized == {"t:1": 1, "t:3": 0} and not read["t:2"].is_named
    refused(path, "t.jsonl:1: task t:1", "sides must be 1 to 30", oversized="error")
    second = write("s.jsonl", "".join(json.dumps(line) + "\n" for line in lines[::-1]))
    with pytest.raises(OversizedError) as error:
        read_tasks(second, "error")
    assert not isinstance(error.value, LineError)


def test_files_that_are_none_are_refused_and_not_waited_for(tmp_path, write):
    folder = write("tasks/a.json", TASK).parent
    for name, make in {
        "pipe": os.mkfifo,
        "folder": os.mkdir,
        "link": lambda path: os.symlink("/nowhere/x", path),
        "device": lambda path: os.symlink("/dev/zero", path),
    }.items():
        path = folder / f"{name}.json"
        make(path)
        message = refused(folder)
        assert message.startswith(f"{path}: ")
        (os.rmdir if name == "folder" else os.remove)(path)
    assert list(read_tasks(folder)) == ["a"]
    refused("a\0b", "no such file or folder of tasks")


def test_long_ids_are_read_and_shortened_in_messages(write):
    name = "x" * 2_000_000
    assert list(read_tasks(write("a.json", {name: TASK}))) == [name]
    for task in ({"train": [PAIR]}, {"train": [LARGE], "test": [PAIR]}, 3):
        assert len(refused(write("b.json", {name: task}))) < 500
    assert len(refused(write("c.json", f'{{"{name}": 1, "{name}": 2}}'))) < 500
    assert len(refused(write("d.json", {name + "\n": TASK}))) < 500


def test_the_cases_that_people_have_are_read(shared):
    assert list(read_tasks(shared / "cases" / "nested")) == ["e872b94a"]
    assert list(read_tasks(shared / "cases" / "kaggle_folder")) == ["e872b94a"]
    with pytest.warns(TaskWarning, match="1 of 4 tasks passed over, .*: z_long "):
        assert len(read_tasks(shared / "cases" / "bigone")) == 3
