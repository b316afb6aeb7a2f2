"""What training uses: tokens and verdicts a second, the share of what matrix products could do, and memory."""

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

    The time between steps counts, in which batches are waited for; validations do not. The share of the peak is that of
    the products of weights and activations (`operations_a_token`) in a large product's operations a second, measured on
    this machine when training starts. Several processes have as much to do each, so that one's speed tells that of all.
    `rate` is the tokens a second of the last steps.
    """

    def __init__(self) -> None:
        self._peak = self._operations = 0.0
        self._last: float | None = None
        self.rate = 0.0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._seconds, self._tokens, self._verdicts = 0.0, 0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure what the machine can do, and say how it is used."""
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
            f"attention {attention}"
        )
        self._begin_anew()
        self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: TreeBatch, batch_idx: int
    ) -> None:
        """Count a step; log what is due."""
        now = time.perf_counter()
        self._seconds += 0.0 if self._last is None else now - self._last
        self._last = now
        self._tokens += sum(batch.n_tokens)
        self._verdicts += sum(correct >= 0 for shape in batch.shapes for correct in shape.correct)
        if not self._peak or not self._seconds:
            return
        n = trainer.world_size
        self.rate = rate = n * self._tokens / self._seconds
        if trainer.global_step % typed_trainer(trainer).log_every_n_steps == 0:
            values = {"tokens_per_second": rate, "verdicts_per_second": n * self._verdicts / self._seconds}
            values["share_of_peak"] = rate * self._operations / (n * self._peak)
            values["memory_gib"] = peak_memory_gib(pl_module.device)
            for logger in trainer.loggers:
                logger.log_metrics({f"usage/{name}": value for name, value in values.items()}, trainer.global_step)
            self._begin_anew()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave out the time of a validation."""
        self._last = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the time until a validation."""
        if self._last is not None:
            self._seconds += time.perf_counter() - self._last


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory so far in GiB: that of a GPU that tensors took, else that of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def operations_a_token(model: nn.Module, recompute: bool = False) -> float:
    """Return the floating-point operations of a training step on a token, without those of attention and the head.

    A weight takes two in the forward pass, two for the gradient of its input, and two for its own if it is trained.

    Args:
        model: with weights, or with their shapes alone.
        recompute: whether the forward pass counts twice, as gradient checkpointing runs it again.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in model.parameters() if p.dim() == 2 and id(p) not in embeddings]
    return float(sum(p.numel() * (4 + 2 * p.requires_grad + 2 * recompute) for p in matrices))


def _fastest(config: Any, dtype: torch.dtype) -> str:
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return fastest_attention(*(torch.empty(1, n, 0, width, dtype=dtype) for n in (heads, kv_heads)))
