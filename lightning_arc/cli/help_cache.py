"""Help pages that were made before: making one loads torch and Lightning, showing it again loads neither."""

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from io import StringIO
from pathlib import Path

from lightning_arc.package_files import PACKAGE

LIBRARIES = ("lightning", "jsonargparse", "torch")
"""Further packages that a page depends on."""


def show_help(name: str, make: Callable[[], object]) -> None:
    """Print a page, which is kept in ``~/.cache/lightning-arc`` (``$XDG_CACHE_HOME``) until a source file changes.

    Args:
        name: of the page.
        make: prints the page where there is none yet, and exits.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning-arc"
    path = folder / f"{name}-{_key()}.txt"
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
            make()
        page = printed.getvalue()
        with suppress(OSError):  # the next time takes as long, then
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{name}-*.txt"):
                old.unlink(missing_ok=True)
            whole = path.with_suffix(f".{os.getpid()}")
            whole.write_text(page, encoding="utf-8")
            whole.replace(path)
    sys.stdout.write(page)


def _key() -> str:
    """Name all that a page depends on: the sources, the libraries, the machine, the width of the terminal."""
    stats = [(str(path), path.stat()) for path in sorted(PACKAGE.rglob("*.py"))]
    parts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    parts += [*map(version, LIBRARIES), sys.version, platform.node(), shutil.get_terminal_size().columns]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
