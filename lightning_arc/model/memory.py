"""A training step's memory on a device, computed from shapes before any weight is loaded.

Weights, gradients and the optimizer's state are counted on meta tensors. Activations that layers keep for the backward
pass are counted on one and two real layers of the model, with random weights, in two short packs. They are linear in
the tokens of a pack and in the layers, as only the ``mask`` attention keeps a number for each pair of tokens.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_arc.data.batch import Pack, TreeBatch
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.head import LOGITS_PER_CHUNK
from lightning_arc.model.int8_products import int8_weights
from lightning_arc.model.load import without_wrapper
from lightning_arc.model.machine import computing_type
from lightning_arc.model.meta import PROBE_TOKENS, few_layers
from lightning_arc.model.optimizers import OptimizerName, make_optimizer
from lightning_arc.model.tree_forward import pack_hidden
from lightning_arc.model.vocabulary import end_weights
from lightning_arc.prompt.positions import has_grid_positions
from lightning_arc.prompt.tree import IGNORE, Branch, PromptKind, TokenTree

SHORT = 64
"""Tokens of the shorter pack in which activations are counted; the other one has twice as many."""

QUANTIZED = 0.5 + 1 / 64 + 1 / 64 / 64
"""Bytes of a 4-bit NormalFloat with its share of the scales of its block of 64, which are quantized too."""

BLOCK_8BIT, LEAST_8BIT = 256, 4096
"""Constants of bitsandbytes: numbers that share a scale, and the size from which on a tensor's state has 8 bits."""


@dataclass(frozen=True)
class StepSize:
    """The sizes of a training's batches that determine its memory.

    Args:
        tokens: tokens of the largest pack.
        targets: most targets of a pack.
        packs: most packs of a batch.
        accumulates: whether gradients of several batches are summed before a step.
    """

    tokens: int
    targets: int
    packs: int = 1
    accumulates: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes by part.

    Args:
        frozen: weights that are not trained, in all types in which they are held.
        trained: trained weights.
        gradients: gradients of the trained weights.
        copies: further copies of the gradients, where a step has several packs.
        optimizer: the optimizer's averages.
        activations: activations of a pack that are kept for the backward pass.
        layer: further memory for the backward pass of one layer.
        logits: logits that exist at once, with their gradients.
    """

    frozen: int
    trained: int
    gradients: int
    copies: int
    optimizer: int
    activations: int
    layer: int
    logits: int

    @property
    def most(self) -> int:
        """Peak bytes; logits are freed before the backward pass of layers begins."""
        lasting = self.frozen + self.trained + self.gradients + self.copies + self.optimizer
        return lasting + self.activations + max(self.layer, self.logits)


@dataclass(frozen=True)
class Activations:
    """Bytes that are kept for the backward pass: ``fixed + token * tokens``, for a layer and outside of layers."""

    layer_fixed: float
    layer_token: float
    other_fixed: float
    other_token: float

    def of_layer(self, tokens: int) -> int:
        """Return the bytes of one layer."""
        return round(self.layer_fixed + self.layer_token * tokens)

    def of_layers(self, n: int, tokens: int) -> int:
        """Return the bytes of a model of ``n`` layers."""
        return n * self.of_layer(tokens) + round(self.other_fixed + self.other_token * tokens)


@dataclass(frozen=True)
class Probe:
    """Activations that layers keep, with and without gradient checkpointing."""

    whole: Activations
    checkpointed: Activations

    @classmethod
    def of(cls, module: ArcModel, precision: str) -> "Probe":
        """Count activations on the first layers of a module's model.

        Args:
            module: settings of a model that need not have been built.
            precision: as the trainer names it.
        """
        models = [few_layers(module, n, precision) for n in (1, 2)]  # once they checkpoint, this cannot be undone
        return cls(*(_activations(models, precision, checkpointing) for checkpointing in (False, True)))


def memory(module: ArcModel, model: nn.Module, probe: Probe, step: StepSize, precision: str, recompute: bool) -> Memory:
    """Return the memory of a training step.

    Args:
        module: settings of the model.
        model: the model, with weights or, from `meta_model`, without.
        probe: activations that its layers keep.
        step: sizes of the batches.
        precision: as the trainer names it.
        recompute: whether layers are run again in the backward pass (gradient checkpointing).
    """
    causal_lm = without_wrapper(model)
    config = causal_lm.config.get_text_config()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients, integers = _bytes(trained), int8_weights(causal_lm) if module.int8_products else 0
    wide = computing_type(precision).itemsize
    # A mask becomes a number to add for each pair of tokens, in every layer.
    pairs = step.tokens**2 * wide if module.attention == "mask" else 0
    n, layer = config.num_hidden_layers, probe.whole.of_layer(step.tokens) + pairs
    kept = probe.checkpointed.of_layers(n, step.tokens) if recompute else probe.whole.of_layers(n, step.tokens)
    return Memory(
        frozen=_frozen(model, module.quantize is not None) + 2 * integers,  # and their transposes
        trained=gradients,
        gradients=gradients,
        copies=gradients * ((step.packs > 1) + (step.packs > 1 and step.accumulates)),
        optimizer=optimizer_bytes(module.optimizer_name, trained, end_weights(causal_lm)),
        activations=kept + (0 if recompute else n * pairs),
        layer=layer * (2 if recompute else 1),  # its activations once more, and their gradients
        logits=_logits(causal_lm, step.targets, wide),
    )


def optimizer_bytes(name: OptimizerName, trained: Sequence[nn.Parameter], embeddings: Sequence[Tensor]) -> int:
    """Return the bytes that an optimizer keeps after its first step, which is taken on meta tensors.

    Args:
        name: name of the optimizer.
        trained: the weights, on any device.
        embeddings: those of them that are embeddings or heads, see `make_optimizer`.
    """
    if name == "paged_adamw_8bit":
        return sum(map(_state_of_8_bits, trained))
    bare = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in trained}
    for p in bare.values():
        p.grad = torch.empty_like(p)
    ends = [bare[id(p)] for p in embeddings if id(p) in bare]
    optimizer = make_optimizer(name, bare.values(), 1e-4, 0.0, (0.9, 0.95), fused=False, embeddings=ends)
    optimizer.step()
    return _bytes([x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)])


def _state_of_8_bits(p: Tensor) -> int:
    n = p.numel()
    return 8 * n if n < LEAST_8BIT else 2 * (n + 4 * -(-n // BLOCK_8BIT))


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _frozen(model: nn.Module, quantized: bool) -> int:
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
    if not quantized:
        return _bytes([*frozen.values()])
    bases = [m.get_base_layer() for m in model.modules() if isinstance(m, LoraLayer)]
    narrow = {id(m.weight): m.weight for m in bases if isinstance(m, nn.Linear)}
    rest = [p for key, p in frozen.items() if key not in narrow]
    return _bytes(rest) + round(QUANTIZED * sum(p.numel() for p in narrow.values()))


def _logits(causal_lm: PreTrainedModel, targets: int, wide: int) -> int:
    head = causal_lm.get_output_embeddings()
    n_tokens, width = head.weight.shape
    rows = min(targets, max(1, LOGITS_PER_CHUNK // n_tokens))
    states = targets * width * wide
    if type(head) is not nn.Linear or head.bias is not None:
        return states + targets * n_tokens * 12  # autograd's: the logits, their softmax and their gradient
    cast = 0 if head.weight.element_size() == wide else n_tokens * width * wide
    if not head.weight.requires_grad:
        return states + cast + rows * n_tokens * 8  # logits, and their exponentials
    # and gradients in the type of the products and in that of the weight, and the weight's own
    return states + cast + rows * n_tokens * (8 + wide) + n_tokens * width * head.weight.element_size()


def _activations(models: Sequence[nn.Module], precision: str, checkpointing: bool) -> Activations:
    (one_short, one_long), (two_short, two_long) = (
        [_kept(model, precision, n, checkpointing) for n in (SHORT, 2 * SHORT)] for model in models
    )
    layer_token = (two_long - two_short - one_long + one_short) / SHORT
    layer_fixed = two_short - one_short - layer_token * SHORT
    other_token = (one_long - one_short) / SHORT - layer_token
    other_fixed = one_short - layer_fixed - (layer_token + other_token) * SHORT
    return Activations(layer_fixed, layer_token, other_fixed, other_token)


def _kept(model: nn.Module, precision: str, n: int, checkpointing: bool) -> int:
    """Return the bytes that layers keep of a pack of ``n`` tokens, without their weights."""
    causal_lm = without_wrapper(model)
    if checkpointing:
        causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    weights = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with _autocast(precision), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        hidden = pack_hidden(
            causal_lm.get_decoder(), _pack(n, has_grid_positions(causal_lm.config.to_dict())), "cascade"
        )
    del hidden  # until here the graph kept all tensors alive, so that no address was used twice
    return sum(kept.values())


def _autocast(precision: str) -> AbstractContextManager:
    return torch.autocast("cpu", computing_type(precision)) if precision.endswith("16-mixed") else nullcontext()


def _pack(n: int, grid_positions: bool) -> Pack:
    """Return a pack of one tree of ``n`` tokens, half of them its prefix."""
    half = n // 2
    tokens, ignored = np.arange(half, dtype=np.int32) % PROBE_TOKENS, np.full(half, IGNORE, np.int32)
    kinds = np.full(half, PromptKind.OUTPUT_FROM_EXAMPLES, np.int8)
    places = np.zeros((half, 3), np.int32) if grid_positions else None
    branch = Branch(tokens, ignored, kinds, np.ones(half, np.float32), positions=places)
    return TreeBatch.collate([TokenTree(tokens, ignored, (branch,), positions=places)], 0, 0).packs[0]
