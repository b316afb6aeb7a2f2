"""Paths of the package's own files, which are found from any working directory, and of the user's cache."""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from lightning_arc.errors import DataError

PACKAGE = Path(__file__).parent
CANDIDATES = PACKAGE / "bundled" / "candidates"
ADAPTERS = PACKAGE / "bundled" / "adapters"
CONFIGS = PACKAGE / "configs"

BUNDLED_MODEL = PACKAGE / "bundled" / "model"
"""The small model that comes with the package, with the rankers fitted to it; ``model_path: bundled`` names it."""

BUNDLED = "bundled:"
"""What the name of a bundled file of candidates, or of a bundled adapter, begins with."""

IN_A_CLONE = ("lightning_arc", "bundled", "candidates")
"""The folder of the bundled files as configs of earlier versions name it."""


def cache_folder() -> Path:
    """Return the folder of files that can be recomputed: ``~/.cache/lightning_arc``, or in ``$XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_arc"


def find_candidates(path: Path) -> Path:
    """Return where a file of candidates lies.

    Args:
        path: ``bundled:NAME``, or a path; one into this repository leads into the package from any folder.

    Raises:
        DataError: if there is no such bundled file.
    """
    if str(path).startswith(BUNDLED):
        return _bundled(str(path), CANDIDATES, "*.json", "candidates")
    inside = path.parts[:3] == IN_A_CLONE and not path.exists()
    return CANDIDATES.joinpath(*path.parts[3:]) if inside else path


def find_adapter(path: str) -> str:
    """Return the folder of an adapter: ``bundled:NAME`` is one of this package, any other path stays as it is.

    Raises:
        DataError: if there is no such bundled adapter.
    """
    return str(_bundled(path, ADAPTERS, "*", "adapter")) if path.startswith(BUNDLED) else path


def _bundled(path: str, folder: Path, pattern: str, what: str) -> Path:
    name, names = path.removeprefix(BUNDLED), sorted(each.name for each in folder.glob(pattern))
    if name not in names:
        raise DataError(f"{path}: no such bundled {what}, there are {', '.join(BUNDLED + n for n in names)}")
    return folder / name


def find_config(name: str) -> str:
    """Return the path of a config: a file here, else one of the package (``rank.yaml`` or ``configs/rank.yaml``).

    A name that does not look like a YAML file's is returned as it is.

    Raises:
        DataError: if there is neither.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or "://" in name or "\n" in name or path.exists():
        return name
    inside = path.parts[1:] if path.parts[0] == CONFIGS.name else path.parts
    if not path.is_absolute() and CONFIGS.joinpath(*inside).is_file():
        return str(CONFIGS.joinpath(*inside))
    names = sorted(str(each.relative_to(CONFIGS)) for each in CONFIGS.rglob("*.yaml"))
    near = get_close_matches(str(Path(*inside)), names, 1, cutoff=0.7)
    raise DataError(f"{name}: no such config" + (f"; did you mean {CONFIGS.name}/{near[0]}?" if near else ""))


def find_configs(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, with each config replaced by the path that `find_config` returns.

    Raises:
        DataError: like `find_config`.
    """
    return list(_found(words))


def _found(words: Sequence[str]) -> Iterator[str]:
    before = ""
    for word in words:
        option, equals, value = word.partition("=")
        if before in ("--config", "-c"):
            yield find_config(word)
        elif equals and option == "--config":
            yield f"{option}={find_config(value)}"
        else:
            yield word
        before = word
