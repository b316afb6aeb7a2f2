"""Speed as it is logged: tokens and verdicts of the steps, in the time that they took."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from lightning_arc.callbacks import speed
from lightning_arc.callbacks.speed import Speed, operations_a_token
from lightning_arc.model.machine import computing_type


class Shape:
    correct = (1, 0, -1)


class Batch:
    n_tokens = (30, 10)
    shapes = (Shape(), Shape())


class Logger:
    def __init__(self):
        self.rows = []

    def log_metrics(self, values, step):
        self.rows.append((step, values))


class Trainer:
    precision, log_every_n_steps, global_step = "32-true", 2, 0

    def __init__(self, world_size=1):
        self.loggers, self.world_size = [Logger()], world_size


class Module:
    device, attention, int8_products = torch.device("cpu"), "mask", False
    model = nn.Linear(10, 10, bias=False)


@pytest.mark.parametrize(("int8", "end"), [(False, "mask"), (True, "mask; frozen weights in 8 bits")])
def test_a_line_tells_how_the_machine_is_used(monkeypatch, int8, end):
    lines: list[str] = []
    monkeypatch.setattr(speed, "rank_zero_info", lines.append)
    monkeypatch.setattr(speed, "product_rate", lambda dtype, device: 2e12)
    module = Module()
    module.int8_products = int8
    Speed().on_train_start(Trainer(), module)
    assert lines == [f"Speed: precision 32-true, matrix products 2.00 TFLOP/s; attention {end}"]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulated", [1, 3])
def test_rates_are_those_of_the_steps_of_all_processes_without_validations(monkeypatch, processes, accumulated):
    clock = [100.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(speed, "product_rate", lambda dtype, device: 1e5)
    callback, trainer, module = Speed(), Trainer(processes), Module()
    callback.on_train_start(trainer, module)
    for seconds in (1.0, 3.0, 2.0, 2.0):
        for micro_batch in range(accumulated):
            clock[0] += seconds / accumulated
            trainer.global_step += micro_batch == accumulated - 1
            callback.on_train_batch_end(trainer, module, None, Batch(), 0)
        callback.on_validation_start(trainer, module)
        clock[0] += 50.0
        callback.on_validation_end(trainer, module)
    (first, values), (second, _) = trainer.loggers[0].rows
    assert (first, second) == (2, 4)
    assert values["usage/tokens_per_second"] == pytest.approx(processes * accumulated * 80 / 4)
    assert values["usage/verdicts_per_second"] == pytest.approx(processes * accumulated * 8 / 4)
    assert values["usage/share_of_peak"] == pytest.approx(accumulated * 20 * 600 / 1e5)
    assert values["usage/memory_gib"] > 0
    assert callback.rate == pytest.approx(processes * accumulated * 80 / 4)


def test_operations_are_those_of_the_products_with_weights():
    config = Qwen2Config(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    weights = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
    assert operations_a_token(model) == 6 * weights
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    assert operations_a_token(adapted) == 4 * weights + 6 * (2 * 8 + 8 * 2)


def test_products_have_the_type_of_the_precision():
    types = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}
    for precision, dtype in (types | {"32-true": torch.float32}).items():
        assert computing_type(precision) == dtype
