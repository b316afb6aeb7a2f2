"""Messages about a command line that its parser refuses: one line, with the name that was probably meant."""

import inspect
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, get_args

from lightning_arc.errors import DataError

RENAMED_RANKERS = {"Votes": "MajorityVote", "Combined": "LogLinearRanker", "Selection": "ComparativeRanker"}
"""New names of rankers by their old ones."""

RENAMED_OPTIONS = {"data.lesson_prompts": "data.test_time_prompts"}
"""New names of options by their old ones."""

WRITERS = ("lightning_arc.callbacks.ranking_writer", "lightning_arc.callbacks.generation_writer")
"""Modules of callbacks that early configs list and predictions no longer need."""

UNKNOWN = re.compile(r"unrecognized arguments: --([^\s=]+)|does not accept option '([^']+)'")
LINKED = re.compile(r"argument (\S+) --> (\S+): ")
PROBLEM = re.compile(r"Problem with given class_path '([^']+)': (?:Option '([^']+)' is not accepted)?")
NO_CLASS = re.compile(r"Expected a dot import path string: (\w+)|has no attribute '(\w+)'")
WRONG_VALUE = re.compile(r"Expected a (?:typing\.Literal\[(.*?)\]|<class '(\w+)'>)\. Got value: (\S*)")
REASON = re.compile(r" Errors: - (.*?)(?: - | Given value)")
KEY = re.compile(r'Parser key "([^"]+)"')


def explain(error: Exception, options: Mapping[str, Any]) -> str:
    """Return the message for an error of a parser.

    Args:
        error: the parser's error.
        options: types of the command's options by their names.
    """
    text = " ".join(str(error).split())
    key = KEY.search(text)
    for module in WRITERS:
        if f"class_path '{module}." in text:
            return f"there is no module {module}: leave it out, what is written follows from data.generate"
    if match := UNKNOWN.search(text):
        name = match[1] or match[2]
        check_renamed(name)
        return no_such_option(name, options)
    if match := LINKED.search(text):
        return f"no option --{match[2]}, it follows --{match[1]}"
    if key and (match := PROBLEM.search(text)) and match[2]:
        inside = [f"{key[1]}.{name}" for name in _parameters(match[1])]
        return no_such_option(f"{key[1]}.{match[2]}", inside)
    if key and (match := NO_CLASS.search(text)):
        name = match[1] or match[2]
        if name in RENAMED_RANKERS:
            return f"there is no ranker {name}; it is now called {RENAMED_RANKERS[name]}"
        near = get_close_matches(name, [each.__name__ for each in _subclasses(options.get(key[1]))], 1)
        return f"{key[1]}: no class {name}" + (f"; did you mean {near[0]}?" if near else "")
    if match := WRONG_VALUE.search(text):
        choices = (match[1] or match[2]).replace("'", "").split(", ")
        expected = " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
        return f"{'.'.join(KEY.findall(text[: match.start()]))} is {match[3]}, expected {expected}"
    if key and (match := REASON.search(text)):
        return f"{key[1]}: {match[1]}"
    return text


def check_renamed(name: str) -> None:
    """Refuse the old name of an option.

    Raises:
        DataError: says its new name.
    """
    if name in RENAMED_OPTIONS:
        raise DataError(f"there is no option {name}; it is now called {RENAMED_OPTIONS[name]}")


def no_such_option(name: str, names: Iterable[str]) -> str:
    """Return the message for an unknown option, with the nearest known one."""
    names = [each for each in names if not each.endswith((".help", "+"))]
    group, _, tail = name.rpartition(".")
    tails = {each.removeprefix(f"{group}."): each for each in names if each.rpartition(".")[0] == group}
    others = {each.rpartition(".")[2]: each for each in names} | {each: each for each in names}
    near = get_close_matches(tail, tails, 1)
    near = near or get_close_matches(tail, others, 1, cutoff=0.8) or get_close_matches(name, others, 1, cutoff=0.8)
    return f"no option --{name}" + (f"; did you mean --{(others | tails)[near[0]]}?" if near else "")


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    return list(inspect.signature(getattr(import_module(module), name)).parameters)


def _subclasses(hint: Any) -> list[type]:
    """Return the classes in a type, and all that derive from them."""
    if args := get_args(hint):
        return [each for arg in args for each in _subclasses(arg)]
    if not inspect.isclass(hint) or hint.__module__ == "builtins":
        return []
    return [hint, *(each for derived in hint.__subclasses__() for each in _subclasses(derived))]
