"""What torch hands to both passes of a function with a gradient of its own, with its types."""

from typing import Any, Protocol

from torch import Tensor


class Context(Protocol):
    """What the forward pass leaves for the backward pass.

    Attributes:
        needs_input_grad: of each argument, whether its gradient is wanted.
        saved_tensors: what was saved, ``None`` where that was.
    """

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Any, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save tensors."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which results have no gradient."""
