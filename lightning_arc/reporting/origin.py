"""The origin of a ranking, for a reader who finds its report months later."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lightning_arc import __version__
from lightning_arc.ranking.calibration import Calibration
from lightning_arc.ranking.rankers import Ranker


@dataclass(frozen=True)
class Origin:
    """The model, data and settings that a ranking was made with.

    Args:
        model: path or name of the model.
        checkpoint: checkpoint of its training, ``None`` if there is none.
        tasks: where the tasks came from.
        candidates: files of the candidates.
        views: how many views each test input was asked under, in words.
        ranker: the ranker with its settings, in words.
        settings: all settings, as YAML; empty where they are not known.
        date: when the files were written.
        command: the command that was typed.
    """

    model: str
    checkpoint: str | None
    tasks: str
    candidates: tuple[str, ...]
    views: str
    ranker: str
    settings: str = ""
    date: str = field(default_factory=lambda: datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
    command: str = field(default_factory=lambda: typed_command())

    @property
    def facts(self) -> dict[str, list[str]]:
        """Each fact by its name, in one or more lines."""
        return {
            "model": [self.model],
            "checkpoint": [self.checkpoint or "none: the model's weights as they are"],
            "tasks": [self.tasks],
            "candidates": list(self.candidates),
            "views": [self.views],
            "ranker": [self.ranker],
            "date": [self.date],
            "command": [self.command],
            "version": [f"lightning-arc {__version__}"],
        }


def typed_command() -> str:
    """Return the command line of this process, as a shell takes it."""
    return shlex.join(sys.orig_argv)


def in_words(value: Any) -> str:
    """Return a ranker or calibration with its settings, such as ``Likelihood(over_views='mean')``; others by `repr`."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {in_words(one)}' for name, one in value.items())}}}"
    if isinstance(value, list) and len(value) > 8:
        return f"[{len(value)} numbers]"
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, Ranker | Calibration):
        return repr(value)
    hidden = ("name", "kinds", "unit")
    known = {name: one for name, one in vars(value).items() if name not in hidden and one is not None}
    return f"{type(value).__name__}({', '.join(f'{name}={in_words(one)}' for name, one in known.items())})"
