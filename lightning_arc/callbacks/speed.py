"""Speed and memory of training: tokens and verdicts per second, the share of peak operations, and memory."""

import resource
import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_arc.data.batch import TreeBatch
from lightning_arc.model.machine import computing_type, fastest_attention, product_rate
from lightning_arc.model.typed import typed_model, typed_trainer


class Speed(L.Callback):
    """Logs the speed of training, and its memory, as ``usage/…`` every ``log_every_n_steps`` steps.

    The time waiting for batches counts; validations do not. The share of the peak divides the operations per second of
    products of weights and activations (`operations_a_token`) by those of a large matrix product, measured on this
    machine when training starts. Only the first process is measured, as all have the same amount of work. `rate` is the
    tokens per second of the last steps.
    """

    def __init__(self) -> None:
        self._peak = self._operations = 0.0
        self._last: float | None = None
        self._logged = 0
        self.rate = 0.0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._seconds, self._tokens, self._verdicts = 0.0, 0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the machine's peak operations per second; print it with precision and attention backend."""
        dtype, device = computing_type(str(trainer.precision)), pl_module.device.type
        if device not in ("cpu", "cuda"):
            return
        model = typed_model(pl_module)
        self._peak, self._operations = product_rate(dtype, device), operations_a_token(model.model)
        attention: str = model.attention
        if attention == "auto":
            attention = "flex" if device == "cuda" else _fastest(model.causal_lm.config.get_text_config(), dtype)
        rank_zero_info(
            f"Speed: precision {trainer.precision}, matrix products {self._peak / 1e12:.2f} TFLOP/s; "
            f"attention {attention}{'; frozen weights in 8 bits' if model.int8_products else ''}"
        )
        self._begin_anew()
        self._last, self._logged = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: TreeBatch, batch_idx: int
    ) -> None:
        """Count a step; log the speed if due."""
        now = time.perf_counter()
        self._seconds += 0.0 if self._last is None else now - self._last
        self._last = now
        self._tokens += sum(batch.n_tokens)
        self._verdicts += sum(correct >= 0 for shape in batch.shapes for correct in shape.correct)
        if not self._peak or not self._seconds:
            return
        n = trainer.world_size
        self.rate = rate = n * self._tokens / self._seconds
        step = trainer.global_step
        due = step % typed_trainer(trainer).log_every_n_steps == 0
        if due and step != self._logged:  # a step may take several batches
            values = {"tokens_per_second": rate, "verdicts_per_second": n * self._verdicts / self._seconds}
            values["share_of_peak"] = rate * self._operations / (n * self._peak)
            values["memory_gib"] = peak_memory_gib(pl_module.device)
            self._logged = step
            for logger in trainer.loggers:
                logger.log_metrics({f"usage/{name}": value for name, value in values.items()}, step)
            self._begin_anew()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave out the time of a validation."""
        self._last = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the time until a validation."""
        if self._last is not None:
            self._seconds += time.perf_counter() - self._last


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory so far in GiB: of tensors on a GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def operations_a_token(model: nn.Module, recompute: bool = False) -> float:
    """Return the floating-point operations of a training step per token, without those of attention and the head.

    A weight takes two operations in the forward pass, two for the gradient of its input, and two for its own gradient
    if it is trained.

    Args:
        model: the model, with weights or only with their shapes.
        recompute: whether the forward pass counts twice, as gradient checkpointing runs it again.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in model.parameters() if p.dim() == 2 and id(p) not in embeddings]
    return float(sum(p.numel() * (4 + 2 * p.requires_grad + 2 * recompute) for p in matrices))


def _fastest(config: Any, dtype: torch.dtype) -> str:
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return fastest_attention(*(torch.empty(1, n, 0, width, dtype=dtype) for n in (heads, kv_heads)))
