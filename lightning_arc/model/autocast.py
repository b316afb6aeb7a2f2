"""Types of matrix products under autocast, and the scale of losses in float16."""

import torch

LIFT = 2.0**12
"""Factor of losses, by which their gradients are divided again, where products are in float16.

Gradients that are computed together with a loss precede the trainer's scaler; without the factor small ones would
underflow to zero.
"""


def autocast_type(device: str) -> torch.dtype | None:
    """Return the type that products on a kind of device are computed in under autocast; ``None`` outside of it."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None
