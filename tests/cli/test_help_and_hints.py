"""What a command's help shows, and what is suggested for names that are mistyped."""

import subprocess
import sys

import pytest

from lightning_arc.cli import command_line
from lightning_arc.cli.callback_groups import GROUPS
from lightning_arc.cli.help_page import EXPORTED, USED_BY
from lightning_arc.cli.option_names import check_names
from lightning_arc.errors import DataError

RANK = ("predict", "--config", "configs/rank.yaml")


@pytest.fixture(scope="module")
def parsers() -> dict:
    """The parsers of all commands."""

    class Parsers(command_line.ArcCLI):
        def __init__(self) -> None:
            super().__init__(args=["fit"])

        def instantiate_classes(self):
            pass

        def _run_subcommand(self, subcommand):
            pass

    return Parsers()._subcommand_parsers


@pytest.mark.parametrize(
    ("command", "shows", "hides"),
    [
        ("fit", ("data.train_datasets", "checkpoint.save_last", "pictures.n"), ("ranker", "n_views", "candidates")),
        ("validate", ("data.val_dataset", "model.ranker", "pictures.n"), ("learning_rate", "checkpoint.", "n_views")),
        ("predict", ("data.candidates", "model.ranker", "progress.leave"), ("train_datasets", "wrong_per", "pictures")),
        ("export", ("folder", "ckpt_path", "merge"), ("trainer", "data.tasks", "progress", "scratch")),
    ],
)
def test_a_command_shows_what_it_uses_its_own_options_first(parsers, command, shows, hides):
    page = parsers[command].format_help()
    assert all(f"--{name}" in page for name in shows)
    options = [line.split()[0] for line in page.splitlines() if line.startswith("  --")]
    assert not [option for option in options for name in hides if name in option]
    places = [page.index(word) for word in ("--ckpt_path", "--model.", "--data.")]
    places += [page.index(f"--{name}.") for name, group in GROUPS.items() if command in group.commands]
    places += [page.index("  --trainer.")] if command != "export" else []
    assert places == sorted(places) and "Linked arguments" not in page


def test_hidden_options_are_accepted(parsers):
    settings = parsers["fit"].parse_args(["--data.n_views=3", "--model.ranker=Likelihood"])
    assert settings.data.n_views == 3


def test_every_option_that_a_page_hides_or_shows_is_there(parsers):
    named = {name for names in (*USED_BY.values(), EXPORTED) for name in names.split()}
    there = {action.dest for parser in parsers.values() for action in parser._actions}
    assert named - there == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.n_viewz", "3"), "no option --data.n_viewz; did you mean --data.n_views?"),
        (("--data.n_viewz=3",), "no option --data.n_viewz; did you mean --data.n_views?"),
        (("--dat.n_views=3",), "no option --dat.n_views; did you mean --data.n_views?"),
        (("--n_views=3",), "no option --n_views; did you mean --data.n_views?"),
        (("--model.n_views=3",), "no option --model.n_views; did you mean --data.n_views?"),
        (("--trainer.max_stps=3",), "no option --trainer.max_stps; did you mean --trainer.max_steps?"),
        (("--checkpoint.save_lst=true",), "no option --checkpoint.save_lst; did you mean --checkpoint.save_last?"),
        (("--ckpt_pth=x",), "no option --ckpt_pth; did you mean --ckpt_path?"),
        (("--data.zzzz=3",), "no option --data.zzzz"),
        (("--data.model_path=x",), "no option --data.model_path, it follows --model.model_path"),
        (("--model.lora.rr=3",), "no option --model.lora.rr; did you mean --model.lora.r?"),
        (("--model.lora.r=x",), "model.lora.r is x, expected int"),
        (("--model.optimizer=adam",), "model.optimizer is adam, expected adamw, muon or paged_adamw_8bit"),
        (("--data.n_views=x",), "data.n_views is x, expected int"),
        (("--model.ranker=Likelihod",), "model.ranker: no class Likelihod; did you mean Likelihood?"),
        (
            ("--model.ranker={class_path: lightning_arc.ranking.rankers.Likelihod}",),
            "model.ranker: no class Likelihod; did you mean Likelihood?",
        ),
        (
            ("--model.ranker=ComparativeRanker", "--model.ranker.styl=pairs"),
            "no option --model.ranker.styl; did you mean --model.ranker.style?",
        ),
        (
            ("--trainer.callbacks+=EpisodePicture",),
            "trainer.callbacks: no class EpisodePicture; did you mean EpisodePictures?",
        ),
        (
            ("--data.train_datasets+={pth: a}",),
            "no option --data.train_datasets.pth; did you mean --data.train_datasets.path?",
        ),
        (("--config=configs/rnk.yaml",), "configs/rnk.yaml: no such config; did you mean configs/rank.yaml?"),
    ],
)
def test_a_mistyped_name_is_refused_with_a_suggestion(cli, words, message):
    assert cli(*RANK, *words, status=2).strip() == f"error: {message}"


def test_a_mistyped_key_of_a_config_is_refused_with_a_suggestion(cli, tmp_path):
    path = tmp_path / "mine.yaml"
    for text, message in {
        "data: {n_viewz: 3}": f"{path}: no option --data.n_viewz; did you mean --data.n_views?",
        "model: {lora: {rr: 3}}": "no option --model.lora.rr; did you mean --model.lora.r?",
        "pictures: null": "pictures is null, expected its options",
        "trainer: {callbacks: [lightning_arc.callbacks.ranking_writer.RankingWriter]}": "there is no module "
        "lightning_arc.callbacks.ranking_writer: leave it out, what is written follows from data.generate",
        "checkpoint: {save_lst: true}": "no option --checkpoint.save_lst; did you mean --checkpoint.save_last?",
    }.items():
        path.write_text(text)
        assert cli(*RANK, "--config", path, status=2).strip() == f"error: {message}"


@pytest.mark.parametrize(
    ("words", "meant"), [(("pool", "--tusks=a"), "tasks"), (("merge", "candidates", "--fils=a"), "files")]
)
def test_a_mistyped_option_of_a_further_command_is_refused_with_a_suggestion(cli, words, meant):
    assert f"; did you mean --{meant}?" in cli(*words, status=2)


def test_a_mistyped_option_is_refused_before_torch_is_loaded(repo_root):
    code = "import sys; from lightning_arc.cli import main\ntry: main(['fit', '--trainer.max_stps', '3'])\n"
    code += "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True)
    assert ended.stdout == "2 False\n" and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "word", ["--data.train_datasets+={path: a}", "--data.n_vie=3", "--trainer.help", "--model.lora.rr=3", "--x.y=3"]
)
def test_what_may_be_right_is_left_to_the_parser(word):
    check_names(["fit", word])


def test_names_that_are_read_from_source_files_are_those_of_the_parser(parsers):
    for name in ("model", "data", "trainer"):
        options = [a.dest.split(".")[1] for a in parsers["fit"]._actions if a.dest.startswith(f"{name}.")]
        for option in {*options}:
            check_names([f"--{name}.{option}"])
        with pytest.raises(DataError):
            check_names([f"--{name}.no_such_option"])
