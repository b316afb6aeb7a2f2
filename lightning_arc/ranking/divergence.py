"""Tasks whose test-time training diverged, and a sentence about them."""

from collections.abc import Iterable
from typing import Protocol

from lightning_arc.arc import PairKey


class Trained(Protocol):
    """A record of what a model answered about a query."""

    @property
    def key(self) -> PairKey:
        """The query."""

    @property
    def diverged(self) -> bool:
        """Whether the test-time training before it diverged."""


def diverged_tasks(records: Iterable[Trained]) -> list[str]:
    """Return the ids of the tasks for which a test-time training diverged, sorted."""
    return sorted({record.key.task_id for record in records if record.diverged})


def divergence_sentence(tasks: list[str]) -> str:
    """Return a sentence about tasks whose test-time training diverged; an empty one where there are none."""
    if not tasks:
        return ""
    some = ", ".join(tasks[:3]) + (", …" if len(tasks) > 3 else "")
    return (
        f"Test-time training diverged on {len(tasks)} task{'s' * (len(tasks) > 1)} ({some}), for which the model was "
        "asked as it is: try a lower model.test_time.learning_rate."
    )
