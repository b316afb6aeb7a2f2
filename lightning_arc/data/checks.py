"""Checks that several groups of options share."""

from lightning_arc.errors import DataError


def check_at_least_1(options: object, *names: str) -> None:
    """Raise a `DataError` that names the first of some options of ``data`` that is less than 1; ``None`` may be."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise DataError(f"data.{name} is {value}, expected at least 1")
