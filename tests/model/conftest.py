"""What tests of the model share."""

import pytest
import torch

from lightning_arc.model.load import new_model
from lightning_arc.prompt.compact import compact_tokenizer

from .helpers import SIZE


@pytest.fixture
def model():
    torch.manual_seed(0)
    return new_model(SIZE, compact_tokenizer()).double()
