"""What autocast does to products."""

import torch

LIFT = 2.0**12
"""What losses are multiplied by, and their gradients divided by, where products are in float16.

Gradients that are made together with a loss come before the trainer's scaler; small ones would be zero by then.
"""


def autocast_type(device: str) -> torch.dtype | None:
    """Return the type that products on a kind of device are computed in under autocast; ``None`` outside of it."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None
