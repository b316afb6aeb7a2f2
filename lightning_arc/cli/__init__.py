"""The command line: its commands, and the function that each of them runs."""

import sys
from argparse import ArgumentError
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import get_type_hints

from lightning_arc.cli.one_line import one_line_errors
from lightning_arc.errors import DataError

LIGHTNING = {
    "fit": "train a model",
    "validate": "measure a model on validation tasks",
    "predict": "rank candidates, or generate them",
    "export": "write a trained adapter or model in the format of peft and transformers",
}
"""Commands of `lightning_arc.cli.command_line`, which load torch."""

FUNCTIONS = {
    "pool": ("cli.pool", ("build_pool",), "collect wrong predictions of many pairs in a file"),
    "merge": ("cli.merge", ("candidates", "submissions"), "merge candidates, or submissions, of several solvers"),
    "fit-ranker": ("cli.fit_ranker", ("fit",), "fit the weights and the calibration of a combined ranker"),
    "compare": ("cli.compare", ("compare",), "compare recorded rankings of the same test inputs"),
    "score": ("cli.score", ("score",), "score a finished submission as ARC does"),
    "show": ("cli.show", ("show",), "draw a task, and candidates, in the terminal"),
    "experiment": ("experiments.run", ("experiment",), "run an experiment of configs/experiments"),
}
"""Further commands: a module of the package, and the functions in it whose arguments are the options."""

POSITIONAL = ("score", "show")
"""Commands whose required arguments are positional."""


def main(words: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        words: words of the command line, without the program's name; ``None`` for those of this process.
    """
    words = list(sys.argv[1:] if words is None else words)
    with one_line_errors():
        if not words or words[0] in ("-h", "--help"):
            print(overview())
        elif words[0] in FUNCTIONS:
            _run(words[0], words[1:])
        elif words[0] in LIGHTNING or words[0].startswith("-"):
            _start(words)
        else:
            raise DataError(unknown(words[0]))


def overview() -> str:
    """Return the text that ``--help`` prints."""
    commands = LIGHTNING | {name: about for name, (_, _, about) in FUNCTIONS.items()}
    lines = [f"  {name:<11} {about}" for name, about in commands.items()]
    usage = f"usage: {program()} COMMAND [--config FILE.yaml] [OPTIONS]"
    return "\n".join([usage, "", *lines, "", f"{program()} COMMAND --help lists the options of a command."])


def unknown(name: str) -> str:
    """Return the message for an unknown command."""
    names = [*LIGHTNING, *FUNCTIONS]
    near = get_close_matches(name, names, 1)
    return f"no command {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}")


def _start(words: list[str]) -> None:
    from lightning_arc.cli.option_names import check_names
    from lightning_arc.folders import find_configs

    check_names(find_configs(words))
    from lightning_arc.cli.command_line import ArcCLI

    ArcCLI(words[0] if words[0] in LIGHTNING else None, args=words)


def _run(name: str, words: list[str]) -> None:
    from jsonargparse import auto_cli

    from lightning_arc.cli.suggestions import explain
    from lightning_arc.folders import find_configs

    module, functions, _ = FUNCTIONS[name]
    found = [getattr(import_module(f"lightning_arc.{module}"), function) for function in functions]
    if name == "show" and len(words) > 1 and words[1].isdigit():
        words[1:2] = ["--test", words[1]]
    what = found if len(found) > 1 else found[0]
    try:
        auto_cli(
            what,
            args=find_configs(words),
            as_positional=name in POSITIONAL,
            prog=f"{program()} {name}",
            exit_on_error=False,
        )
    except ArgumentError as error:
        asked = [each for each in found if words and each.__name__ == words[0]] or found
        options = {option: hint for each in asked for option, hint in get_type_hints(each).items()}
        raise DataError(explain(error, options)) from error


def program() -> str:
    """Return the program's name as it was called."""
    return "lightning-arc" if sys.argv[0].endswith("lightning-arc") else "cli.py"
