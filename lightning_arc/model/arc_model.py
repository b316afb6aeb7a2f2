"""The Lightning module: one causal language model that writes outputs and judges them.

Knows tree batches, losses, metrics, optimisation and checkpoints. Knows nothing of grids, prompts or files of tasks.
"""

import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC
from torchmetrics.retrieval import RetrievalHitRate
from transformers import PreTrainedModel, get_scheduler

from lightning_arc.arc.grid import DataError
from lightning_arc.batch import TreeBatch, TreeTensors
from lightning_arc.model.decoding import Decoding, write
from lightning_arc.model.load import Lora, Scratch, add_lora, fingerprint, load_base, new_qwen2
from lightning_arc.model.recent import Recent
from lightning_arc.model.scoring import BranchScores, score_tree
from lightning_arc.model.tree_forward import at_targets, check_linear_head, target_log_probs, tree_hidden
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.tree import IGNORE, Kind


class ArcModel(L.LightningModule):
    """A model that is trained on token trees, validated, and asked for its evidence about candidates.

    Args:
        model_path: folder or hub name of a causal language model; ``bundled`` for the small one of this package;
            ``null`` to build one from scratch.
        scratch: size of a model from scratch.
        lora: adapter to train; ``null`` trains all weights (or an adapter from `adapter_path`).
        adapter_path: folder of a saved adapter that goes on being trained.
        learning_rate: highest learning rate.
        weight_decay: decay of weights that are matrices.
        betas: averages of AdamW.
        schedule: how the learning rate falls after warming up, over ``trainer.max_steps``.
        warmup_steps: steps in which the learning rate rises from 0.
        loss_weights: weight of each prompt kind in the loss, 1 where not named.
        max_tokens_per_chunk: bound of the tokens whose keys are held at once in validation and prediction.
        decoding: how answers are written where candidates are generated.
    """

    def __init__(
        self,
        model_path: str | None = None,
        scratch: Scratch | None = None,
        lora: Lora | None = None,
        adapter_path: str | None = None,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.95),
        schedule: Literal["linear", "cosine", "constant"] = "cosine",
        warmup_steps: int = 100,
        loss_weights: dict[str, float] | None = None,
        max_tokens_per_chunk: int = 32_768,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        labels = [kind.label for kind in Kind]
        for name in loss_weights or {}:
            if name not in labels:
                raise DataError(f"model.loss_weights: no prompt kind {name!r}, there are {', '.join(labels)}")
        for name, value in (("learning_rate", learning_rate), ("max_tokens_per_chunk", max_tokens_per_chunk)):
            if value <= 0:
                raise DataError(f"model.{name} is {value}, expected more than 0")
        if model_path is None and (lora is not None or adapter_path is not None):
            raise DataError("model.model_path: LoRA needs a model to adapt")
        self.model_path, self.scratch, self.lora, self.adapter_path = model_path, scratch, lora, adapter_path
        self.learning_rate, self.weight_decay, self.betas = learning_rate, weight_decay, tuple(betas)
        self.schedule, self.warmup_steps, self.max_tokens_per_chunk = schedule, warmup_steps, max_tokens_per_chunk
        self._weights = torch.tensor([(loss_weights or {}).get(label, 1.0) for label in labels])
        self.decoding = decoding or Decoding()
        self.grammar: Grammar | None = None
        self.model: torch.nn.Module | None = None
        self.base_fingerprint: str | None = None
        self._recent, self._logged = Recent(), 0
        self.strict_loading = not self.uses_lora
        self.configure_metrics()

    @property
    def uses_lora(self) -> bool:
        """Whether only an adapter is trained."""
        return self.lora is not None or self.adapter_path is not None

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The causal language model, with its adapter's layers in place."""
        return self.model.get_base_model() if self.uses_lora else self.model

    @property
    def name_of_model(self) -> str:
        """What candidates name as their source."""
        return Path(self.adapter_path or self.model_path or "scratch").name

    @property
    def signature(self) -> str:
        """Name of all weights as they are now, and of how is decoded with them."""
        return f"{fingerprint(self.model)}-{self.decoding}"

    def configure_model(self) -> None:
        """Load or build the model, once."""
        if self.model is not None:
            return
        if self.model_path is None:
            self.model = new_qwen2(self.scratch or Scratch(), load_tokenizer(None))
            return
        precision = str(self.trainer.precision) if self._trainer else "32-true"
        # Frozen weights need no more than bfloat16 where the computation is in it; trained ones stay in float32.
        dtype = (
            torch.bfloat16
            if precision.startswith("bf16") and (self.uses_lora or "true" in precision)
            else torch.float32
        )
        base = load_base(self.model_path, dtype)
        check_linear_head(base)
        self.base_fingerprint = fingerprint(base)
        self.model = add_lora(base, self.lora, self.adapter_path) if self.uses_lora else base

    def configure_metrics(self) -> None:
        """Make the validation metrics."""
        self.writing = torch.nn.ModuleList(
            MetricCollection(
                {"loss": MeanMetric(), "token_accuracy": MeanMetric(), "exact_match": MeanMetric()},
                prefix=f"val/{kind.label}/",
                compute_groups=False,
            )
            for kind in Kind
        )
        self.verdict_loss = MeanMetric()
        self.verdicts = MetricCollection(
            {"auroc": BinaryAUROC(), "accuracy": BinaryAccuracy()},
            prefix="val/verify-output-from-examples/",
            compute_groups=False,
        )
        self.rankings = torch.nn.ModuleDict(
            {
                f"{method}_top{k}": RetrievalHitRate(top_k=k, empty_target_action="skip")
                for method in ("verifier", "likelihood", "vote")
                for k in (1, 2)
            }
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and its schedule."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.learning_rate, betas=self.betas)
        name = "constant_with_warmup" if self.schedule == "constant" else self.schedule
        steps = self.trainer.estimated_stepping_batches
        if self.schedule != "constant" and steps == float("inf"):
            raise DataError(f"trainer.max_steps: model.schedule {self.schedule} needs it")
        scheduler = get_scheduler(name, optimizer, self.warmup_steps, None if name.startswith("const") else int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: TreeBatch, batch_idx: int) -> Tensor:
        """Return the loss: per prompt kind the weighted mean over its targets, summed with the kinds' weights."""
        losses, hits, weights, kinds = self._target_losses(batch)
        total = losses.sum() * 0
        for kind in Kind:
            mask = kinds == kind
            weight = weights[mask]
            if weight.sum() == 0:
                continue
            loss = (losses[mask] * weight).sum() / weight.sum()
            total = total + self._weights[kind] * loss
            accuracy = (hits[mask] * weight).sum() / weight.sum()
            self._recent.add({f"train/{kind.label}/loss": loss, f"train/{kind.label}/accuracy": accuracy})
        self._recent.add({f"data/{name}": value for name, value in batch.stats.items()})
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=len(batch.trees))
        return total

    def on_train_batch_end(self, outputs: Any, batch: TreeBatch, batch_idx: int) -> None:
        """Log means over the steps since the last time; a single step has few prompts of each kind."""
        if self.global_step % self.trainer.log_every_n_steps == 0 and self.global_step != self._logged:
            self._logged = self.global_step
            means = self._recent.means()
            for logger in self.loggers:
                logger.log_metrics(means, self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Begin with empty metrics."""
        for metric in (*self.writing, self.verdict_loss, self.verdicts, *self.rankings.values()):
            metric.reset()

    def validation_step(self, batch: TreeBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Update the metrics; return ``{"episode", "log_odds", "answers"}`` per tree for pictures."""
        outputs = []
        for tree, info in zip(batch.trees, batch.info, strict=True):
            scores = score_tree(self.causal_lm, tree, batch.yes_id, batch.no_id, self.max_tokens_per_chunk)
            self._update_writing(tree, scores)
            if not (tree.correct >= 0).any():
                continue
            right = tree.correct == 1
            log_odds = scores.log_odds.float()
            self.verdict_loss.update(torch.nn.functional.softplus(torch.where(right, -log_odds, log_odds)))
            self.verdicts.update(log_odds.sigmoid(), right.long())
            self._update_rankings(info, tree, log_odds, scores.log_likelihood.float())
            outputs.append({"episode": info["episode"], "log_odds": log_odds.cpu(), "answers": tree.answers.cpu()})
        return outputs

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, where an episode was short enough to be judged."""
        weights = torch.stack([self.verdict_loss.weight, *(metrics["loss"].weight for metrics in self.writing)])
        verdicts, *writing = self.trainer.strategy.reduce(weights, reduce_op="sum").tolist()
        if not verdicts and not any(writing):
            rank_zero_warn("data.max_seq_len: no validation episode is that short, so that there are no metrics")
        for seen, metrics in zip(writing, self.writing, strict=True):
            if seen:
                self.log_dict(metrics.compute())
        if not verdicts:
            return
        self.log("val/verify-output-from-examples/loss", self.verdict_loss.compute())
        self.log_dict(self.verdicts.compute())
        for name, metric in self.rankings.items():
            if metric.indexes:
                self.log(f"val/ranking/{name}", metric.compute())

    def predict_step(self, batch: TreeBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Return, per tree, the evidence about all candidates of a test input under one view, or answers to a query.

        Returns:
            A list of dicts with ``key``, ``view``, ``log_odds`` and ``log_likelihood`` (a float per candidate, nan
            where there is none), ``seconds``, ``prefix_tokens`` and ``branch_tokens``. Where answers are to be written,
            with ``key``, ``view``, ``written`` (see `Written`), ``n_demonstrations``, ``tokens`` and ``seconds``.
        """
        if any("room" in info for info in batch.info):
            return [self._write(tree, info) for tree, info in zip(batch.trees, batch.info, strict=True)]
        evidence = []
        for tree, info in zip(batch.trees, batch.info, strict=True):
            start = time.perf_counter()
            scores = score_tree(self.causal_lm, tree, batch.yes_id, batch.no_id, self.max_tokens_per_chunk)
            record = {"key": info["key"], "view": info["view"]}
            for name in ("log_odds", "log_likelihood"):
                values = [float("nan")] * info["n_answers"]
                for place, value in zip(tree.answers.tolist(), getattr(scores, name).tolist(), strict=True):
                    values[place] = value
                record[name] = values
            record["seconds"] = time.perf_counter() - start
            record |= {"prefix_tokens": len(tree.prefix), "branch_tokens": int(tree.lengths.sum())}
            evidence.append(record)
        return evidence

    def _write(self, tree: TreeTensors, info: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        prompt = torch.cat([tree.prefix, tree.tokens[0]])
        limits = info["room"], self.decoding, self.grammar, info["seed"], self.max_tokens_per_chunk
        written, tokens = write(self.causal_lm, prompt, info["end_id"], *limits)
        about = {name: info[name] for name in ("key", "view", "n_demonstrations")}
        return about | {"written": written, "tokens": tokens, "seconds": time.perf_counter() - start}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is not trained, and name the base that belongs to it."""
        if self.uses_lora:
            trained = {name for name, p in self.named_parameters() if p.requires_grad}
            checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
            checkpoint["base"] = {"model_path": self.model_path, "fingerprint": self.base_fingerprint}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that was trained on another base.

        Raises:
            DataError: if it was, or lacks some of the weights that it must hold.
        """
        base = checkpoint.get("base")
        if bool(base) != self.uses_lora:
            kind = "an adapter" if base else "all weights"
            raise DataError(f"the checkpoint holds {kind}, the settings of the model say otherwise (model.lora)")
        if base and base["fingerprint"] != self.base_fingerprint:
            raise DataError(
                f"model.model_path: the checkpoint belongs to {base['model_path']} ({base['fingerprint']}), "
                f"this is {self.model_path} ({self.base_fingerprint})"
            )
        wanted = {name for name, p in self.named_parameters() if p.requires_grad}
        missing = wanted - set(checkpoint["state_dict"])
        if missing:
            raise DataError(f"the checkpoint lacks {len(missing)} weights of the model, {min(missing)} among them")

    def _target_losses(self, batch: TreeBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return loss, hit, weight and kind of every trained target, each ``(N,)``."""
        decoder, head = self.causal_lm.get_decoder(), self.causal_lm.get_output_embeddings()
        hidden, targets, weights, kinds = [], [], [], []
        for tree in batch.trees:
            prefix_hidden, hidden_states = tree_hidden(decoder, tree)
            h, t = at_targets(prefix_hidden, tree.prefix_targets)
            branch_targets = tree.targets.where(tree.weights > 0, IGNORE)
            bh, bt = at_targets(hidden_states, branch_targets)
            mask = branch_targets != IGNORE
            hidden += [h, bh]
            targets += [t, bt]
            weights += [torch.ones(len(t), device=t.device), tree.weights[mask]]
            kinds += [torch.full_like(t, Kind.OUTPUT_FROM_EXAMPLES), tree.kinds[mask]]
        log_probs, hits = target_log_probs(head, torch.cat(hidden), torch.cat(targets))
        return -log_probs, hits.float(), torch.cat(weights), torch.cat(kinds)

    def _update_writing(self, tree: TreeTensors, scores: BranchScores) -> None:
        """Update the metrics of what is trained to be written; a prompt's answer is one branch of a kind."""
        trained = (tree.targets != IGNORE) & (tree.weights > 0) & (tree.kinds != Kind.VERIFY_OUTPUT_FROM_EXAMPLES)
        for i in trained.any(1).nonzero()[:1, 0].tolist():
            metrics = self.writing[int(tree.kinds[i][trained[i]][0])]
            written, hits = scores.written[i], scores.hits[i]
            metrics["loss"].update(-scores.log_likelihood[i] / written, weight=written)
            metrics["token_accuracy"].update(hits / written, weight=written)
            metrics["exact_match"].update((hits == written).float())

    def _update_rankings(self, info: dict[str, Any], tree: TreeTensors, log_odds: Tensor, likelihood: Tensor) -> None:
        votes = torch.tensor(info["votes"], dtype=torch.float, device=log_odds.device)[tree.answers]
        voted = votes > 0
        if not voted.any():
            return
        right = (tree.correct == 1)[voted]
        query = torch.full((int(voted.sum()),), info["episode"], device=log_odds.device)
        # A stable order first: torchmetrics leaves the order of equal scores open.
        for method, score in (("verifier", log_odds), ("likelihood", likelihood), ("vote", votes)):
            place = score[voted].argsort(descending=True, stable=True).argsort()
            for k in (1, 2):
                self.rankings[f"{method}_top{k}"].update(-place.float(), right, query)
