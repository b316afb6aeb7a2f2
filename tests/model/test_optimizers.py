"""Optimizers and schedules by name."""

from copy import deepcopy

import pytest
import torch

from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Lora, load_base
from lightning_arc.model.optimizers import BatchedMuon, make_optimizer, make_schedule, use_settings

PARAMETERS = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]


def test_only_matrices_decay():
    optimizer = make_optimizer("adamw", PARAMETERS, 0.1, 0.5, (0.9, 0.95))
    assert [(len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups] == [(1, 0.5), (1, 0.0)]


def weights() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = (8, 4), (4, 6), (6,), (5, 4)  # two matrices, a norm, an embedding
    return [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


def descend(optimizers, parameters, steps: int) -> None:
    for step in range(steps):
        for p in parameters:
            p.grad = torch.sin(p.detach() + step)
        for optimizer in optimizers:
            optimizer.step()


def test_muon_for_many_matrices_at_once_is_torchs_for_one_after_the_other():
    draw = torch.Generator().manual_seed(1)
    shapes = [(24, 16), (16, 24), (16, 16), (24, 16), (16, 16), (24, 16)]
    one = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    other = deepcopy(one)
    ours = BatchedMuon(one, 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    theirs = torch.optim.Muon(other, 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    before = deepcopy(one)
    descend([ours], one, 5)
    descend([theirs], other, 5)
    for p, q, start in zip(one, other, before, strict=True):
        assert (p - start).norm() > 0.1
        assert (p - q).norm() / (p - start).norm() < 0.01  # products in bfloat16, in another order
    assert ours.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()


def test_muon_updates_matrices_as_torchs_and_all_else_as_adamw():
    one, other = weights(), weights()
    both = make_optimizer("muon", one, 0.1, 0.5, (0.9, 0.95), embeddings=one[3:])
    muon = torch.optim.Muon(other[:2], 0.1, 0.5, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": other[3:], "weight_decay": 0.5}, {"params": other[2:3], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, 0.1, betas=(0.9, 0.95), fused=True)
    descend([both], one, 3)
    descend([muon, adamw], other, 3)
    assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


def test_muon_goes_on_from_its_state_with_a_schedule():
    one, other = weights(), weights()
    first = make_optimizer("muon", one, 0.1, 0.5, (0.9, 0.95), embeddings=one[3:])
    schedule = make_schedule("stable", first, 0, 10)
    descend([first], one, 3)
    again = make_optimizer("muon", other, 0.7, 0.5, (0.9, 0.95), embeddings=other[3:])
    with torch.no_grad():
        for p, q in zip(other, one, strict=True):
            p.copy_(q)
    again.load_state_dict(deepcopy(first.state_dict()))
    for optimizer, parameters in ((first, one), (again, other)):
        descend([optimizer], parameters, 2)
    assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))
    use_settings(schedule, 0.2, 0.3, (0.9, 0.95))
    assert [(g["lr"], g["weight_decay"]) for g in first.param_groups] == [(0.2, 0.3), (0.2, 0.3), (0.2, 0.0)]


def test_muon_of_matrices_alone_or_of_none_is_one_optimizer():
    assert isinstance(make_optimizer("muon", weights()[:2], 0.1, 0.0, (0.9, 0.95)), torch.optim.Muon)
    assert isinstance(make_optimizer("muon", weights()[2:3], 0.1, 0.0, (0.9, 0.95)), torch.optim.AdamW)


def test_a_stable_schedule_falls_over_the_last_fifth_and_can_be_prolonged_until_then():
    def rates(steps: int) -> list[float]:
        factor = make_schedule("stable", make_optimizer("adamw", weights(), 1.0, 0.0, (0.9, 0.95)), 2, steps)
        return [factor.lr_lambdas[0](step) for step in range(steps + 1)]

    assert rates(10) == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 1, 1, 0.5, 0])
    assert rates(20)[:16] == rates(40)[:16] and rates(20)[18] == pytest.approx(0.5)


def test_a_schedule_that_falls_needs_an_end():
    optimizer = make_optimizer("adamw", PARAMETERS, 0.1, 0.5, (0.9, 0.95))
    make_schedule("constant", optimizer, 10, float("inf"))
    with pytest.raises(DataError, match="trainer.max_steps: model.schedule linear needs it"):
        make_schedule("linear", optimizer, 10, float("inf"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_is_refused_without_one():
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
        ({"int8_products": True, "compile": True}, "model.compile: layers with model.int8_products"),
        ({"learning_rate": 0.0}, "model.learning_rate"),
        ({"weight_decay": -1.0}, "model.weight_decay is -1.0, expected 0 or more"),
        ({"betas": (0.9, 1.5)}, r"model.betas is \[0.9, 1.5\]"),
        ({"warmup_steps": -5}, "model.warmup_steps is -5"),
        ({"model_path": "bundled", "lora": Lora(dropout=-1.0)}, "model.lora.dropout is -1.0"),
        ({"loss_weights": {"verify": 1.0}}, "model.loss_weights"),
        ({"loss_weights": {"verify-output-from-examples": -1.0}}, "model.loss_weights"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        ArcModel(**settings)


@pytest.mark.parametrize("layers", ["q_proj(", ["no_such_layer"]])
def test_layers_that_there_are_none_of_are_refused_in_one_line(layers):
    module = ArcModel("bundled", lora=Lora(r=4, target_modules=layers))
    with pytest.raises(DataError, match=r"^model\.lora: ") as error:
        module.build()
    assert "\n" not in str(error.value)
