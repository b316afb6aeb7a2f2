"""The typed context that torch passes to ``forward`` and ``backward`` of an ``autograd.Function``."""

from typing import Any, Protocol

from torch import Tensor


class Context(Protocol):
    """The context of an ``autograd.Function``.

    Attributes:
        needs_input_grad: whether each argument's gradient is wanted.
        saved_tensors: the saved tensors, ``None`` where ``None`` was saved.
    """

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Any, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save tensors."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which results have no gradient."""
