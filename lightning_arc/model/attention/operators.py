"""Operators of torch that are private to it: a version may lack them, or take other arguments."""

from collections.abc import Callable
from typing import Any

import torch

Operator = Callable[..., Any]


def private_operator(name: str, arguments: str, overload: str = "default") -> Operator | None:
    """Return an operator of ``torch.ops.aten``; ``None`` where this torch has none of its name and arguments.

    Args:
        name: name of the operator.
        arguments: names of its arguments, in order.
        overload: name of its overload.
    """
    operator = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if operator is None or [argument.name for argument in operator._schema.arguments] != arguments.split():
        return None
    return operator
