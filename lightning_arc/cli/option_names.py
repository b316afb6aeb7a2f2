"""Names of options, read from source files: a mistyped one is reported at once, before torch is loaded."""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from lightning_arc.cli.suggestions import check_renamed, no_such_option
from lightning_arc.errors import DataError
from lightning_arc.folders import PACKAGE


def check_names(words: Sequence[str]) -> None:
    """Refuse words, and keys of config files, that name no option of the model, the data or the trainer.

    All other checks are left to the command's parser.

    Args:
        words: words of a command line whose configs have been found.

    Raises:
        DataError: names the option and a similar one.
    """
    classes, names = _classes(), list[str]()
    for name, place in (*_typed(words), *_in_configs(words)):
        group, *inside = name.split(".")
        if group not in classes or not inside or inside[0] == "help":
            continue
        check_renamed(name)
        known = _arguments(*classes[group])
        if not any(argument.startswith(inside[0]) for argument in known):  # names may be abbreviated
            names = names or [f"{each}.{argument}" for each in classes for argument in _arguments(*classes[each])]
            raise DataError(place + no_such_option(name, names))


def _typed(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        if word.startswith("--"):
            yield word.removeprefix("--").partition("=")[0].removesuffix("+"), ""


def _in_configs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for before, word in zip(("", *words), words, strict=False):
        path = word.removeprefix("--config=") if word.startswith("--config=") else word
        if before not in ("--config", "-c") and path == word:
            continue
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        for group, settings in content.items() if isinstance(content, dict) else ():
            for key in settings if isinstance(settings, dict) else ():
                yield f"{group}.{key}".removesuffix("+"), f"{path}: "


def _classes() -> dict[str, tuple[Path, str]]:
    """Return the file and the class whose arguments are a group of options, by the group's name."""
    found = find_spec("lightning")
    assert found is not None and found.origin is not None  # it is installed, as a package with a file
    lightning = Path(found.origin).parent
    return {
        "model": (PACKAGE / "model" / "arc_model.py", "ArcModel"),
        "data": (PACKAGE / "data" / "options.py", "DataOptions"),
        "trainer": (lightning / "pytorch" / "trainer" / "trainer.py", "Trainer"),
    }


@cache
def _arguments(path: Path, name: str) -> list[str]:
    """Return the arguments of a class: those of its ``__init__``, or the fields of a dataclass and its bases."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    (of_class,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
    for node in of_class.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return [argument.arg for argument in (*node.args.args[1:], *node.args.kwonlyargs)]
    bases = {base.id for base in of_class.bases if isinstance(base, ast.Name)}
    names = [
        argument
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module
        for each in node.names
        if each.name in bases
        for argument in _arguments(PACKAGE.parent.joinpath(*node.module.split(".")).with_suffix(".py"), each.name)
    ]
    fields = [node.target for node in of_class.body if isinstance(node, ast.AnnAssign)]
    return names + [field.id for field in fields if isinstance(field, ast.Name)]
