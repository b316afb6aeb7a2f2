"""A combined ranker with fitted weights and calibration, such as those of the bundled model."""

import warnings
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from lightning_arc.errors import DataError, first_line
from lightning_arc.folders import BUNDLED_MODEL, find_adapter
from lightning_arc.ranking.rankers.pointwise import LogLinearRanker
from lightning_arc.ranking.rankers.ranker import Ranker


class Fitted(LogLinearRanker):
    """Orders by a combination, see `LogLinearRanker`, as `lightning_arc.cli.fit_ranker` wrote it.

    Args:
        path: the file that it wrote, or a folder with a ``ranker.yaml`` and a ``ranker_without_order.yaml``;
            ``bundled:NAME`` for those of a bundled adapter, ``null`` for those of the bundled model.
        order: whether the candidates' file lists the best first, as the bundled ones do, so that its order is evidence.
            ``false`` takes a folder's weights without the order.

    Raises:
        DataError: if there is no such file or no combined ranker in it, or if ``order`` is false and its weights use
            the order.
    """

    def __init__(self, path: str | None = None, order: bool = True) -> None:
        self.path = path
        file = BUNDLED_MODEL if path is None else Path(find_adapter(path))
        if file.is_dir():
            file /= "ranker.yaml" if order else "ranker_without_order.yaml"
        made = read_ranker(file)
        if not order and made.weights.get("order"):
            raise DataError(f"{path}: goes by the order of the candidates, and model.ranker.order is false")
        super().__init__(made.weights, made.none, made.calibration)


def read_ranker(path: Path) -> LogLinearRanker:
    """Return the combined ranker of a config that `lightning_arc.cli.fit_ranker` wrote.

    Raises:
        DataError: if there is none.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model.ranker", type=Ranker)
    try:
        made = parser.instantiate_classes(parser.parse_path(path)).model.ranker
    except (OSError, ArgumentError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no ranker could be read (model.ranker.path): {first_line(error)}") from error
    if not isinstance(made, LogLinearRanker):
        raise DataError(f"{path}: no combined ranker (model.ranker.path)")
    return made


def warn_of_other_model(source: str) -> None:
    """Warn if the ranker fitted with the bundled model is used with another model, from ``source``."""
    if source != "bundled":
        warnings.warn(
            f"{source}: the default ranker was fitted with the bundled model; fit one with this model "
            "(python cli.py fit-ranker) or set model.ranker",
            stacklevel=2,
        )
