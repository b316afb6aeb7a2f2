"""What the machine does fastest is measured, and what is much faster is taken."""

import pytest
import torch

from lightning_arc.model import machine
from lightning_arc.model.attention import blocks, cascade
from lightning_arc.model.attention.operators import private_operator


@pytest.fixture(autouse=True)
def anew():
    """Measure anew, and again behind each test."""
    found = machine.fastest_precision, machine._fastest_attention, machine.product_rate
    for function in found:
        function.cache_clear()
    yield
    for function in found:
        function.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU nothing is measured")
@pytest.mark.parametrize(("times", "chosen"), [((3, 1), "bf16-mixed"), ((1.1, 1), "32-true"), ((1, 4), "32-true")])
def test_precision_is_that_of_the_faster_product(monkeypatch, times, chosen):
    given = iter(times)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(machine, "_milliseconds", lambda work: next(given))
    assert machine.fastest_precision() == chosen


def test_a_processor_without_bfloat16_computes_in_32_bits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(machine, "_milliseconds", lambda work: pytest.fail("measured"))
    assert machine.fastest_precision() == "32-true"


@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_computes_in_16_bits(monkeypatch, has, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert machine.fastest_precision() == chosen


@pytest.mark.parametrize(("times", "chosen"), [((3.0, 1.0), "blocks"), ((1.1, 1.0), "cascade")])
def test_attention_in_16_bits_is_the_faster_one(monkeypatch, times, chosen):
    given = iter(times)
    monkeypatch.setattr(machine, "_milliseconds", lambda work: (work(), next(given))[1])
    query, key = torch.zeros(1, 4, 5, 16, dtype=torch.bfloat16), torch.zeros(1, 2, 5, 16, dtype=torch.bfloat16)
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert machine.fastest_attention(query, key) == chosen
        assert machine.fastest_attention(query, key) == chosen  # without measuring again
    assert torch.equal(torch.get_rng_state(), state)
    assert machine.fastest_attention(query.float(), key.float()) == "cascade"


def test_training_and_ranking_each_attend_in_the_way_that_is_faster_for_them(monkeypatch):
    given = iter([3.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(machine, "_milliseconds", lambda work: (work(), next(given))[1])
    query, key = torch.zeros(1, 4, 5, 16, dtype=torch.bfloat16), torch.zeros(1, 2, 5, 16, dtype=torch.bfloat16)
    gradients = []
    monkeypatch.setattr(torch.autograd, "grad", lambda *_: gradients.append(torch.is_grad_enabled()))
    assert machine.fastest_attention(query, key) == "blocks" and gradients == [True, True]
    with torch.no_grad():
        assert machine.fastest_attention(query, key) == "cascade" and len(gradients) == 2
    assert machine.fastest_attention(query, key) == "blocks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU nothing is measured")
@pytest.mark.parametrize(
    ("missing", "narrow", "wide"),
    [((blocks,), "cascade", "cascade"), ((cascade,), "blocks", "mask"), ((blocks, cascade), "mask", "mask")],
)
def test_what_torch_lacks_the_operators_for_is_not_taken(monkeypatch, missing, narrow, wide):
    for module in missing:
        monkeypatch.setattr(module, "SUPPORTED", False)
    query, key = torch.zeros(1, 4, 5, 16), torch.zeros(1, 2, 5, 16)
    assert machine.fastest_attention(query, key) == wide
    assert machine.fastest_attention(query.bfloat16(), key.bfloat16()) == narrow


def test_an_operator_is_there_only_with_its_name_and_its_arguments():
    assert blocks.SUPPORTED and cascade.SUPPORTED  # in the torch that is tested with
    assert private_operator("_softmax", "self dim half_to_float out", "out") is not None
    assert private_operator("_softmax", "self dim out", "out") is None
    assert private_operator("_softmax", "self dim half_to_float out", "no_such") is None
    assert private_operator("no_such_operator", "self") is None


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_products_a_second_are_those_of_a_layer(dtype):
    layer, x = torch.nn.Linear(1024, 1024, bias=False, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    with torch.inference_mode():
        seconds = machine._milliseconds(lambda: layer(x)) / 1000
    rate = machine.product_rate(dtype)
    assert 1 / 8 < rate * seconds / (2 * 1024**3) < 8 and machine.product_rate(dtype) == rate


@pytest.mark.parametrize(("seconds", "runs"), [(0.01, 5), (0.2, 3), (2.0, 1)])
def test_slow_work_is_timed_in_fewer_runs(monkeypatch, seconds, runs):
    clock = [0.0]

    def work():
        clock[0] += seconds

    monkeypatch.setattr(machine.time, "perf_counter", lambda: clock[0])
    assert machine._milliseconds(work) == pytest.approx(1000 * seconds)
    assert clock[0] == pytest.approx((1 + runs) * seconds)  # a warm-up before them
