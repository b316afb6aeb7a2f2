"""The weights that test-time training changes: a fresh LoRA adapter on the model, or a copy of all its weights."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch.nn import Parameter
from transformers import PreTrainedModel

from lightning_arc.errors import DataError, first_line
from lightning_arc.model.adapters import Adapters, linear_names
from lightning_arc.model.vocabulary import end_weights

NAME = "test_time"
"""The adapter's name on the model."""


class AdapterWeights:
    """A LoRA adapter on a model.

    Args:
        adapters: the model's adapters.
        r: rank.
        alpha: scale; the update is multiplied by ``alpha / sqrt(r)``.
        target_modules: names of the linear layers that are adapted, or ``all-linear``.

    Attributes:
        weights: the trained weights, by name.
        embeddings: empty, as no trained weight belongs to an embedding or a head.

    Raises:
        DataError: if the model has no layers of these names.
    """

    embeddings: Sequence[Parameter] = ()

    def __init__(self, adapters: Adapters, r: int, alpha: int, target_modules: list[str] | str) -> None:
        self._adapters, model = adapters, adapters.model
        named = target_modules
        layers = linear_names(model, [model.get_output_embeddings()]) if named == "all-linear" else named
        config = LoraConfig(task_type="CAUSAL_LM", r=r, lora_alpha=alpha, target_modules=layers, use_rslora=True)
        try:
            self.weights = adapters.add(NAME, config)
        except ValueError as error:
            raise DataError(f"model.test_time.target_modules: {first_line(error)}") from error

    def reset(self, seed: int) -> None:
        """Initialize the adapter anew; it does not change the model's output yet."""
        devices = [p.device for p in self.weights.values() if p.is_cuda][:1]
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for layer in self._adapters.model.modules():
                if isinstance(layer, LoraLayer) and NAME in layer.lora_A:
                    layer.reset_lora_parameters(NAME, True)

    def finish(self) -> None:
        """Prepare for prediction; an adapter needs nothing."""

    @contextmanager
    def in_use(self, beneath: Sequence[str]) -> Iterator[PreTrainedModel]:
        """Activate the adapter on top of others within a context."""
        with self._adapters.in_use((*beneath, NAME)) as model:
            yield model


class CopiedWeights:
    """A copy of a model, all of whose weights are trained, in float32.

    Args:
        adapters: the model, without an adapter.

    Attributes:
        weights: the trained weights, by name.
        embeddings: those of embeddings and heads.

    Raises:
        DataError: if the model has an adapter, or its weights are quantized.
    """

    def __init__(self, adapters: Adapters) -> None:
        if adapters.peft is not None:
            raise DataError(
                "model.test_time.weights is all, but the model has an adapter: export it with --merge true, or train "
                "an adapter (weights: adapter)"
            )
        self._model = adapters.model
        if getattr(self._model, "is_quantized", False):
            raise DataError("model.test_time.weights is all, but the model's are quantized: train an adapter")
        self._copy = copy.deepcopy(self._model)
        self._copy.requires_grad_(True)
        self.weights = dict(self._copy.named_parameters())
        self.embeddings = end_weights(self._copy)

    def reset(self, seed: int) -> None:
        """Copy the model's weights; the seed is not used."""
        self._copy.float()
        with torch.no_grad():
            for name, p in self._model.named_parameters():
                self.weights[name].copy_(p)

    def finish(self) -> None:
        """Prepare for prediction: cast the copy to the model's type."""
        for name, p in self._model.named_parameters():
            self.weights[name].data = self.weights[name].data.to(p.dtype)

    @contextmanager
    def in_use(self, beneath: Sequence[str]) -> Iterator[PreTrainedModel]:
        """Yield the copy."""
        yield self._copy
