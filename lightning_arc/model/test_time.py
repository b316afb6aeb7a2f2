"""Test-time training: a fresh LoRA adapter for each task, trained on its demonstrations before it is asked about.

Knows adapters, losses, and lessons as training batches by number. Knows nothing of tasks, prompts or Lightning.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel

from lightning_arc.arc.files import whole_file
from lightning_arc.arc.grid import DataError
from lightning_arc.batch import TreeBatch
from lightning_arc.errors import first_line
from lightning_arc.model.adapters import Adapters, linear_names
from lightning_arc.model.finite import not_finite
from lightning_arc.model.optimizers import make_optimizer

NAME = "test_time"
"""What the adapter is called on the model."""

LONGEST_GRADIENT = 1.0
"""Gradients are clipped to this norm."""


@dataclass(frozen=True)
class AtTestTime:
    """How a fresh LoRA is trained on each task's demonstrations (Sun et al., 2020; for ARC, Akyürek et al., 2024).

    Args:
        steps: steps of AdamW; 0 leaves the model as it is.
        trees: prompts a step, each with the right output and wrong ones.
        learning_rate: constant.
        r: rank.
        alpha: scale; the update is multiplied by ``alpha / sqrt(r)``.
        target_modules: names of the linear layers that are adapted, or ``all-linear``.

    Raises:
        DataError: names the setting that is not as it must be.
    """

    steps: int = 16
    trees: int = 2
    learning_rate: float = 2e-4
    r: int = 16
    alpha: int = 16
    target_modules: list[str] | str = "all-linear"

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("trees", 1), ("r", 1), ("alpha", 1)):
            if getattr(self, name) < least:
                raise DataError(f"model.test_time.{name} is {getattr(self, name)}, expected at least {least}")
        if not 0 < self.learning_rate < float("inf"):
            raise DataError(f"model.test_time.learning_rate is {self.learning_rate}, expected more than 0")


class Teaching(Protocol):
    """A lesson, see `lightning_arc.lessons.Lesson`."""

    name: str
    seed: int

    def batch(self, number: int, n_trees: int) -> TreeBatch | None:
        """Return a training batch, ``None`` if there is none."""


class Learned(NamedTuple):
    """What the training for a task came to.

    Args:
        tokens: of the training, 0 where it was done before.
        diverged: whether its loss or its weights were not finite, so that there is no adapter for the task.
    """

    tokens: int
    diverged: bool = False


Loss = Callable[[PreTrainedModel, TreeBatch, list[Parameter]], Tensor]
"""Of a model, a batch and what is trained it gives the loss."""


class Pupil:
    """A model with a place for one task's adapter, whose own weights are never changed.

    The adapter of a task is a pure function of the settings, the model and the lesson. It is kept in a folder, and read
    from there when the task is asked about again, in this run or in one that goes on from it.

    Args:
        adapters: the model's adapters.
        settings: how it learns.
        loss: what is to become less.
        folder: where the tasks' adapters are kept, a file a task.
        signature: names all that they follow from; files of another one are not used.
    """

    def __init__(self, adapters: Adapters, settings: AtTestTime, loss: Loss, folder: Path, signature: str) -> None:
        self.adapters, self.settings, self.loss = adapters, settings, loss
        self.folder, self.signature = folder, signature
        model, named = adapters.model, settings.target_modules
        layers = linear_names(model, [model.get_output_embeddings()]) if named == "all-linear" else named
        config = LoraConfig(
            task_type="CAUSAL_LM", r=settings.r, lora_alpha=settings.alpha, target_modules=layers, use_rslora=True
        )
        try:
            self._weights = adapters.add(NAME, config)
        except ValueError as error:
            raise DataError(f"model.test_time.target_modules: {first_line(error)}") from error
        self._present: str | None = None
        self._diverged: set[str] = set()

    def learn(self, name: str, lesson: Teaching, beneath: Sequence[str] = ()) -> Learned:
        """Let the adapter be that of a task.

        Args:
            name: of the task, and of what else it depends on.
            lesson: is asked for as many batches as there are steps, if the adapter is not there yet.
            beneath: adapters that are in use beneath it.

        Returns:
            What this took, and whether there is an adapter: a training that diverges leaves none.
        """
        if name == self._present:
            return Learned(0)
        if name in self._diverged:
            return Learned(0, diverged=True)
        self._present = None
        path = self.folder / f"{name}.safetensors"
        if self._read(path):
            self._present = name
            return Learned(0)
        # Lightning predicts in inference mode, whose tensors have no gradients; casts of weights are kept from there.
        torch.clear_autocast_cache()
        with torch.inference_mode(False), torch.enable_grad():
            self._begin(lesson.seed)
            tokens, finite = self._train(lesson, beneath)
        torch.clear_autocast_cache()
        if not finite:
            self._diverged.add(name)
            return Learned(tokens, diverged=True)
        with whole_file(path) as temporary:
            own = {key: p.detach().to("cpu").contiguous() for key, p in self._weights.items()}
            temporary.write_bytes(save(own, {"signature": self.signature}))
        self._present = name
        return Learned(tokens)

    def _begin(self, seed: int) -> None:
        devices = [p.device for p in self._weights.values() if p.is_cuda][:1]
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for layer in self.adapters.model.modules():
                if isinstance(layer, LoraLayer) and NAME in layer.lora_A:
                    layer.reset_lora_parameters(NAME, True)

    def _train(self, lesson: Teaching, beneath: Sequence[str]) -> tuple[int, bool]:
        """Return the tokens that were trained with, and whether all losses and the weights are finite."""
        trained, tokens = list(self._weights.values()), 0
        finite = torch.ones((), dtype=torch.bool, device=trained[0].device)
        rate = self.settings.learning_rate
        optimizer = make_optimizer("adamw", trained, rate, weight_decay=0.0, betas=(0.9, 0.95))
        with self.adapters.in_use((*beneath, NAME)) as model, _checkpointing(model):
            for p in trained:
                p.requires_grad_(True)
            for step in range(self.settings.steps):
                batch = lesson.batch(step, self.settings.trees)
                if batch is None:
                    break
                loss = self.loss(model, batch.to(trained[0].device), trained)
                finite &= loss.detach().isfinite()
                loss.backward()
                clip_grad_norm_(trained, LONGEST_GRADIENT)
                optimizer.step()
                optimizer.zero_grad()
                tokens += sum(batch.n_tokens)
        return tokens, bool(finite) and not not_finite(self._weights.items())

    def _read(self, path: Path) -> bool:
        """Take an adapter's weights from a file, if it is one that the same training would give."""
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("signature") != self.signature or {*file.keys()} != {*self._weights}:
                    return False
                with torch.no_grad():
                    for key, p in self._weights.items():
                        p.copy_(file.get_tensor(key))
        except (OSError, RuntimeError, SafetensorError):  # damaged, or with weights of other shapes
            return False
        return True


@contextmanager
def _checkpointing(model: PreTrainedModel) -> Iterator[None]:
    """Let layers be run again in the backward pass where that is wanted; what is in them stays as in prediction."""
    layers = [layer for layer in model.modules() if getattr(layer, "gradient_checkpointing", False)]
    were = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, was in zip(layers, were, strict=True):
            layer.training = was
