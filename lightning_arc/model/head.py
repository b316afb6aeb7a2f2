"""The head: log-probabilities of given next tokens, with logits computed for a few positions at a time."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lightning_arc.model.autocast import LIFT, autocast_type
from lightning_arc.model.autograd import Context

LOGITS_PER_CHUNK = 64 * 2**20
"""Logits that are held at once: 256 MB in float32, of 441 positions at Qwen's 151,936 tokens."""

MOST_FLOAT32 = 2**22
"""Largest head in 16 bits, in weights, whose logits are computed in float32: 4,681 tokens at Qwen2.5-0.5B's width."""


@dataclass(frozen=True)
class Head:
    """Computes logits from hidden states: ``cap * tanh(scale * linear(hidden) / cap)``.

    Args:
        linear: the output embedding.
        scale: factor of the logits.
        cap: soft bound of the logits, ``None`` for none.
    """

    linear: nn.Module
    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Head":
        """Return a model's head, with the scale (Cohere, Granite) and the cap (Gemma) of its configuration."""
        config = model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        return cls(model.get_output_embeddings(), scale, getattr(config, "final_logit_softcapping", None))

    @property
    def weight(self) -> Tensor:
        """``(vocabulary, d)``."""
        weight = self.linear.weight
        assert isinstance(weight, Tensor)  # of an output embedding
        return weight

    def logits(self, hidden: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """Return ``(…, vocabulary)`` logits of ``(…, d)`` hidden states, or ``(…, len(ids))``, in ``float32`` or wider.

        Small differences of logits decide a ranking, and bfloat16 has steps of 1/8 between 16 and 32. So weights of 32
        bits, and up to `MOST_FLOAT32` weights of 16 bits, are multiplied in ``float32``.

        Args:
            hidden: hidden states.
            ids: tokens whose logits are wanted, ``None`` for all.
        """
        if type(self.linear) is nn.Linear:
            weight, bias = self.weight, cast(Tensor | None, self.linear.bias)
            if ids is not None:
                weight, bias = weight[ids], None if bias is None else bias[ids]
            if weight.dtype == torch.float32 or (weight.dtype.itemsize == 2 and weight.numel() <= MOST_FLOAT32):
                with torch.autocast(hidden.device.type, enabled=False):
                    logits = F.linear(hidden.float(), weight.float(), None if bias is None else bias.float())
            else:
                logits = _wide(F.linear(hidden, weight, bias))
        else:
            logits = _wide(self.linear(hidden))
            logits = logits if ids is None else logits[..., ids]
        return _changed(logits, self.scale, self.cap)


@torch.no_grad()
def target_log_probs(head: Head, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of given next tokens.

    Args:
        head: the model's head.
        hidden: ``(N, d)`` hidden states at the positions before the targets.
        targets: ``(N,)`` token ids.

    Returns:
        ``(N,)`` ``float32`` (or wider) log-probabilities, and ``(N,)`` whether the target is the likeliest token.
    """
    log_probs, hits = [hidden.new_zeros(0).float()], [targets.new_zeros(0, dtype=torch.bool)]
    for h, t in _chunks(hidden, targets, head.weight):
        logits = head.logits(h)
        log_probs.append(-F.cross_entropy(logits, t, reduction="none"))
        hits.append(logits.argmax(-1) == t)
    return torch.cat(log_probs), torch.cat(hits)


def chunked_cross_entropy(
    head: Head, hidden: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sum of the cross-entropies of given next tokens.

    The gradients are computed together with the loss, so that a chunk's logits are computed once and not kept.

    Args:
        head: the model's head.
        hidden: ``(N, d)`` hidden states at the positions before the targets.
        targets: ``(N,)`` token ids.
        weights: ``(N,)`` weight of each target in the sum.

    Returns:
        The loss; and without gradients the ``(N,)`` cross-entropies in ``float32`` (or wider), and ``(N,)`` whether the
        target is the likeliest token.
    """
    if type(head.linear) is nn.Linear and head.linear.bias is None:
        return _WeightedLoss.apply(hidden, head.weight, targets.long(), weights, head.scale, head.cap)
    logits = head.logits(hidden)  # a bias, or an adapter on the head: rare, and left to autograd
    losses = F.cross_entropy(logits, targets.long(), reduction="none")
    return (losses * weights).sum(), losses.detach(), logits.argmax(-1) == targets


class _Context(Context, Protocol):
    lift: float


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        scale: float,
        cap: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        device = hidden.device.type
        mixed = autocast_type(device)
        dtype = mixed or hidden.dtype
        lift = LIFT if dtype == torch.float16 else 1.0
        if dtype.itemsize == 2 and weight.numel() <= MOST_FLOAT32:
            dtype = torch.float32
        matrix, loss = weight.to(dtype), []
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        hits = torch.empty_like(targets, dtype=torch.bool)
        start = 0
        with torch.autocast(device, enabled=False) if mixed else nullcontext():
            for h, t in _chunks(hidden.to(dtype), targets, weight):
                rows, w = slice(start, start + len(t)), weights[start : start + len(t), None]
                start += len(t)
                logits = _changed(_wide(F.linear(h, matrix)), scale, cap)
                slope = None if cap is None else 1 - (logits / cap).square_()
                hits[rows] = logits.argmax(-1) == t
                sums = logits.logsumexp(-1, keepdim=True)
                loss.append((sums - logits.gather(1, t[:, None]))[:, 0])
                # from here on the logits' place holds their gradients
                logits.sub_(sums).exp_().scatter_add_(1, t[:, None], logits.new_full((len(t), 1), -1.0)).mul_(
                    w * (scale * lift)
                )
                if slope is not None:
                    logits.mul_(slope)
                gradient = logits.to(dtype)
                if of_hidden is not None:
                    of_hidden[rows] = (gradient @ matrix).to(of_hidden.dtype)
                if of_weight is not None:
                    of_weight.addmm_(gradient.T.to(of_weight.dtype), h.to(of_weight.dtype))
        losses = torch.cat(loss) if loss else _wide(hidden.new_zeros(0))
        ctx.lift = lift
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.mark_non_differentiable(losses, hits)
        return (losses * weights).sum(), losses, hits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Context, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # in place, as the second may be the largest tensor of all; a second pass is an error of autograd's
        of_hidden, of_weight = (None if x is None else x.mul_(gradient / ctx.lift) for x in ctx.saved_tensors)
        return of_hidden, of_weight, None, None, None, None


def _chunks(hidden: Tensor, targets: Tensor, weight: Tensor) -> zip:
    size = max(1, LOGITS_PER_CHUNK // len(weight))
    return zip(hidden.split(size), targets.long().split(size), strict=True)


def _changed(logits: Tensor, scale: float, cap: float | None) -> Tensor:
    if scale != 1:
        logits = logits * scale
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
