"""Whether weights and answers are finite numbers."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lightning_arc.arc import PairKey
from lightning_arc.errors import DataError


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the weights that contain nan or infinity.

    The host waits for the device once.
    """
    named = [(name, p.detach()) for name, p in weights if p.is_floating_point() and p.numel()]
    if not named:
        return []
    finite = torch.stack([p.isfinite().all().to(named[0][1].device) for _, p in named])
    return [name for (name, _), is_finite in zip(named, finite.tolist(), strict=True) if not is_finite]


def check_finite(weights: Iterable[tuple[str, Tensor]], path: str) -> None:
    """Refuse weights that are not finite.

    Args:
        weights: with their names.
        path: where they came from.

    Raises:
        DataError: names the first of them.
    """
    names = not_finite(weights)
    if names:
        raise DataError(
            f"{path}: {len(names)} of its weights are not finite numbers, {names[0]} among them: "
            "its training diverged; use an earlier checkpoint"
        )


@contextmanager
def finite_answers(queries: Sequence[tuple[PairKey, int]]) -> Iterator[None]:
    """Turn a `FloatingPointError` into a `DataError` that names what the model was asked about.

    Args:
        queries: keys and view numbers. The error's ``number``, 0 if it has none, is the index of the query.
    """
    try:
        yield
    except FloatingPointError as error:
        key, view = queries[getattr(error, "number", 0)]
        raise DataError(
            f"task {key.task_id}, {key.split}[{key.index}], view {view}: the model's answer is not a finite number, "
            "though its weights are; compute in bf16-mixed or 32-true (trainer.precision)"
        ) from error
