"""Optimizers and schedules by name."""

import pytest
import torch

from lightning_arc.arc import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Lora, load_base
from lightning_arc.model.optimizers import make_optimizer, make_schedule

PARAMETERS = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]


def test_only_matrices_decay():
    optimizer = make_optimizer("adamw", PARAMETERS, 0.1, 0.5, (0.9, 0.95))
    assert [(len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups] == [(1, 0.5), (1, 0.0)]


def test_a_schedule_that_falls_needs_an_end():
    optimizer = make_optimizer("adamw", PARAMETERS, 0.1, 0.5, (0.9, 0.95))
    make_schedule("constant", optimizer, 10, float("inf"))
    with pytest.raises(DataError, match="trainer.max_steps: model.schedule linear needs it"):
        make_schedule("linear", optimizer, 10, float("inf"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_says_so_without_one():
    with pytest.raises(DataError, match="model.optimizer paged_adamw_8bit: needs an NVIDIA GPU"):
        make_optimizer("paged_adamw_8bit", PARAMETERS, 0.1, 0.5, (0.9, 0.95))
    with pytest.raises(DataError, match="model.quantize 4bit: needs an NVIDIA GPU"):
        load_base("bundled", torch.float32, "4bit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "4bit"}, "model.quantize"),
        ({"trim_vocabulary": True}, "model.trim_vocabulary"),
        ({"lora": Lora()}, "model.model_path"),
        ({"learning_rate": 0.0}, "model.learning_rate"),
        ({"loss_weights": {"verify": 1.0}}, "model.loss_weights"),
        ({"loss_weights": {"verify-output-from-examples": -1.0}}, "model.loss_weights"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        ArcModel(**settings)
