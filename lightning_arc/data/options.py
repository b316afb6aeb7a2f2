"""All options of ``data``: groups, each beside the code that uses it, put together as the command line has them."""

from dataclasses import dataclass
from inspect import getdoc
from typing import Any, TypeVar

from lightning_arc.data.loader import BatchOptions
from lightning_arc.data.mixture import MixtureOptions
from lightning_arc.data.queries import QueryOptions
from lightning_arc.data.sampler import SamplingOptions
from lightning_arc.data.sources import TaskOptions
from lightning_arc.data.ttt import Scope, TestTimeOptions
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_settings import PromptOptions

Options = TypeVar("Options", bound=type[Any])


def with_words_of_groups(options: Options) -> Options:
    """Append the argument descriptions of a dataclass's bases to its docstring.

    Versions of jsonargparse before 4.51 take the texts of ``--help`` from nowhere else.
    """
    words = [(getdoc(group) or "").partition("Args:\n")[2] for group in reversed(options.__bases__)]
    options.__doc__ = "\n".join([getdoc(options) or "", *(arguments.partition("\n\n")[0] for arguments in words)])
    return options


@with_words_of_groups
@dataclass(frozen=True)
class DataOptions(
    SamplingOptions, BatchOptions, PromptOptions, TestTimeOptions, QueryOptions, TaskOptions, MixtureOptions
):
    """What data is read, and how it is shown to the model. The command line lists the last group first.

    Args:
        seed: with a sample's number, determines it (follows ``seed_everything``).
    """

    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options of every group."""
        groups: tuple[type[Any], ...] = DataOptions.__bases__
        for group in groups:
            group.__post_init__(self)


def check_prediction(options: DataOptions, ensemble: bool, scope: Scope | None) -> None:
    """Raise a `DataError` where a prediction's data and its model do not go together.

    Args:
        options: options of the data.
        ensemble: whether several models are asked.
        scope: scope of test-time training, as ``model.test_time`` has it.
    """
    if options.generate and ensemble:
        raise DataError("model.ensemble: candidates are written by one model; ranking takes the files of several")
    if options.test_time_scope != scope:
        raise DataError(
            f"data.test_time_scope is {options.test_time_scope}, expected {scope} as follows from model.test_time"
        )
    if scope == "set" and options.leave_one_out:
        raise DataError(
            "model.test_time.scope: set trains with the outputs that data.leave_one_out asks about; use scope: task"
        )
