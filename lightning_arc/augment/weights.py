"""Weights of named choices as probabilities."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from lightning_arc.errors import DataError


def shares(weights: Mapping[str, float], known: Collection[str], setting: str) -> tuple[list[str], NDArray[np.float64]]:
    """Check weights and turn them into probabilities.

    Args:
        weights: a weight for each name; a name that is missing or has weight 0 is never drawn.
        known: the names there are; results are in their order, however a person ordered the weights.
        setting: name of the option that holds the weights, for messages.

    Returns:
        The names that can be drawn, and as many probabilities with sum 1; both empty if nothing can be drawn.

    Raises:
        DataError: if a name is unknown, or a weight is not a finite number of at least 0.
    """
    for name, weight in weights.items():
        if name not in known:
            raise DataError(f"{setting}: there is no {name!r}, expected some of {', '.join(known)}")
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise DataError(f"{setting}: {name} is {weight!r:.40}, expected a number of at least 0")
    names = [name for name in known if weights.get(name, 0) > 0]
    values = np.array([weights[name] for name in names], float)
    return names, values / values.sum() if names else values
