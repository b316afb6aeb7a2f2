import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_arc.arc import Pair, Task, read_submission, write_submission
from lightning_arc.errors import DataError

grids = arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.integers(0, 9))
ONE = np.array([[1]], np.int8)
TASKS = {"a": Task("a", (Pair(ONE, ONE),), (Pair(ONE, ONE), Pair(ONE, None))), "b": Task("b", (), (Pair(ONE, None),))}
answers = st.fixed_dictionaries(
    {},
    optional={name: st.lists(st.lists(grids, max_size=3), min_size=n, max_size=n) for name, n in (("a", 2), ("b", 1))},
)


@settings(max_examples=25)
@given(answers)
def test_a_submission_has_every_test_input_and_gives_its_attempts_back(tmp_path_factory, answers):
    path = tmp_path_factory.mktemp("submission") / "submission.json"
    write_submission(answers, TASKS, path)
    back = read_submission(path, TASKS)
    assert list(back) == list(TASKS)
    for task_id, task in TASKS.items():
        given_tests = answers.get(task_id, [[]] * len(task.tests))
        expected = [[*(grid.tolist() for grid in some), [[0]], [[0]]][:2] for some in given_tests]
        assert [[grid.tolist() for grid in two] for two in back[task_id]] == expected


def test_a_submission_has_the_form_of_the_competition(tmp_path):
    write_submission({"a": [[ONE], []]}, TASKS, tmp_path / "s.json")
    nothing = {"attempt_1": [[0]], "attempt_2": [[0]]}
    expected = {"a": [{"attempt_1": [[1]], "attempt_2": [[0]]}, nothing], "b": [nothing]}
    assert json.loads((tmp_path / "s.json").read_text()) == expected


@pytest.mark.parametrize("answers", [{"c": [[ONE]]}, {"a": [[ONE]]}])
def test_answers_that_are_not_of_the_tasks_are_not_written(tmp_path, answers):
    with pytest.raises(ValueError, match="task"):
        write_submission(answers, TASKS, tmp_path / "s.json")
    assert not list(tmp_path.iterdir())


TWO = {"attempt_1": [[0]], "attempt_2": [[0]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON: line 1 column 2: Expecting property name enclosed in double quotes"),
        ([], "expected an object of attempts by task id"),
        ({"a": [TWO, TWO]}, "task b: is missing"),
        ({"a": [TWO, TWO], "b": [TWO], "c": [TWO]}, "task c: is none of the 2 tasks"),
        ({"a": [TWO], "b": [TWO]}, "task a: has attempts for 1 test inputs, the task has 2"),
        ({"a": [TWO, TWO], "b": TWO}, "task b: expected a list with attempts for each test input"),
        ({"a": [TWO, {"attempt_1": [[0]]}], "b": [TWO]}, "task a: [1]: expected an object of attempt_1 and attempt_2"),
        ({"a": [TWO, TWO], "b": [3]}, "task b: [0]: expected an object of attempt_1 and attempt_2"),
        (
            {"a": [TWO, TWO | {"attempt_2": [[11]]}], "b": [TWO]},
            "task a: [1].attempt_2 row 0 column 0 is 11, colours are 0 to 9",
        ),
    ],
)
def test_a_bad_submission_is_refused_with_file_task_and_field(write, content, message):
    path = write("s.json", content)
    with pytest.raises(DataError) as error:
        read_submission(path, TASKS)
    assert str(error.value) == f"{path}: {message}"
