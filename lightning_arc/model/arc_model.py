"""The Lightning module: one causal language model that writes outputs and judges them."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from lightning_arc.augment.weights import shares
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.options import check_prediction
from lightning_arc.errors import DataError
from lightning_arc.folders import find_adapter
from lightning_arc.model.attention.proof import check_positions, proved
from lightning_arc.model.attention.tree import AttentionBackend, use_tree_attention
from lightning_arc.model.base_name import check_base_of_folder, name_of_base
from lightning_arc.model.batch_loss import batch_loss
from lightning_arc.model.checkpoint import check_checkpoint
from lightning_arc.model.decoding import Decoding
from lightning_arc.model.ensemble import ModelEnsemble
from lightning_arc.model.fast_layers import use_fast_layers, use_fast_lora
from lightning_arc.model.hyper_parameters import check_model_settings, check_training_settings, settings_to_save
from lightning_arc.model.int8_products import use_int8_products
from lightning_arc.model.load import (
    Lora,
    Scratch,
    add_lora,
    base_type,
    fingerprint,
    load_base,
    new_model,
    without_wrapper,
)
from lightning_arc.model.optimizers import OptimizerName, ScheduleName, make_optimizer, make_schedule, use_settings
from lightning_arc.model.recent import Recent
from lightning_arc.model.scoring import BranchScores, score_batch
from lightning_arc.model.ttt import TestTimeTrainingConfig
from lightning_arc.model.typed import typed_trainer
from lightning_arc.model.validation_metrics import ValidationMetrics
from lightning_arc.model.vocabulary import end_weights, trim
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.tree import PromptKind
from lightning_arc.ranking.rankers import Ensemble, Ranker, Verifier
from lightning_arc.ranking.rankers.fitted import Fitted, warn_of_other_model
from lightning_arc.ranking.stopping import StoppingConfig


class ArcModel(L.LightningModule):
    """A model that is trained on token trees, validated, and asked for its evidence about candidates.

    Args:
        model_path: folder, GGUF file or hub name of a causal language model; ``bundled`` for the small one of this
            package; ``null`` to build one from scratch.
        scratch: size of a model from scratch.
        lora: adapter to train; ``null`` trains all weights (or an adapter from `adapter_path`).
        adapter_path: folder of a saved adapter that goes on being trained; ``bundled:NAME`` for one of this package.
        quantize: ``4bit`` holds the base that an adapter is trained on in 4-bit numbers (needs a GPU and bitsandbytes).
        trim_vocabulary: whether only the tokens that prompts can hold keep their rows in the embedding and the head.
            Likelihoods are then over these tokens; what is exported has all rows.
        attention: attention backend. ``auto`` takes the fastest for the machine; ``mask`` works anywhere.
        gradient_checkpointing: whether layers are run again in the backward pass instead of keeping their activations.
        int8_products: whether frozen weights are multiplied in 8-bit integers, on a CPU: faster for large models where
            products in 16 bits are slow, and about as exact as bfloat16.
        compile: whether layers are compiled, which takes a while and then saves some time in every step.
        optimizer: ``adamw``; ``muon`` for the matrices of layers, with AdamW for the rest; or ``paged_adamw_8bit``
            (needs a GPU and bitsandbytes).
        learning_rate: highest learning rate.
        weight_decay: decay of weights that are matrices.
        betas: averages of AdamW.
        schedule: how the learning rate falls after warming up, over ``trainer.max_steps``; ``stable`` falls over the
            last fifth of them.
        warmup_steps: steps in which the learning rate rises from 0.
        loss_weights: weight of each prompt kind in the loss, 1 where not named.
        decoding: how answers are written where candidates are generated.
        ranker: ranks the candidates, and decides what is asked about them; ``null`` for the verifier.
        stopping: when requests about candidates end; ``null`` asks all of them under ``data.n_views`` views.
        ensemble: further models, whose scores are averaged with this one's: folders of adapters, checkpoints of
            trainings from this model, or folders of whole models that read the same tokens.
        test_time: how an adapter is trained on the demonstrations of each task, or of all, before it is asked; ``null``
            asks the model as it is.
    """

    model: PreTrainedModel | PeftModel
    """The causal language model, perhaps with an adapter, once it is built."""
    kind_weights: Tensor

    def __init__(
        self,
        model_path: str | None = None,
        scratch: Scratch | None = None,
        lora: Lora | None = None,
        adapter_path: str | None = None,
        quantize: Literal["4bit"] | None = None,
        trim_vocabulary: bool = False,
        attention: AttentionBackend = "auto",
        gradient_checkpointing: bool = False,
        int8_products: bool = False,
        compile: bool = False,
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 1e-4,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.95),
        schedule: ScheduleName = "cosine",
        warmup_steps: int = 100,
        loss_weights: dict[str, float] | None = None,
        decoding: Decoding | None = None,
        ranker: Ranker | None = None,
        stopping: StoppingConfig | None = None,
        ensemble: list[str] | None = None,
        test_time: TestTimeTrainingConfig | None = None,
    ) -> None:
        super().__init__()
        # Any checkpoint may be ranked with any ranker.
        self.save_hyperparameters(ignore=["ranker", "stopping", "ensemble", "test_time"])
        labels = [kind.label for kind in PromptKind]
        shares(loss_weights or {}, labels, "model.loss_weights")
        adapts = lora is not None or adapter_path is not None
        check_model_settings(model_path, adapts, quantize, trim_vocabulary, int8_products and compile)
        check_training_settings(learning_rate, weight_decay, betas, warmup_steps, lora)
        self.ensemble = [find_adapter(path) for path in ensemble or []]
        self.test_time, members = test_time, 1 + len(self.ensemble)
        if isinstance(ranker, Ensemble) and ranker.members != members:
            raise DataError(f"model.ranker: an ensemble of {ranker.members} models, model.ensemble makes {members}")
        if self.ensemble and not isinstance(ranker, Ensemble):
            ranker = Ensemble(ranker or Verifier(), members)
        self.model_path, self.scratch, self.lora = model_path, scratch, lora
        self.adapter_path = None if adapter_path is None else find_adapter(adapter_path)
        self.quantize, self.trim_vocabulary, self.attention = quantize, trim_vocabulary, attention
        self.gradient_checkpointing, self.compiles = gradient_checkpointing, compile
        self.int8_products = int8_products
        self.optimizer_name, self.learning_rate = optimizer, learning_rate
        self.weight_decay, self.betas = weight_decay, (betas[0], betas[1])
        self.schedule, self.warmup_steps = schedule, warmup_steps
        weights = torch.tensor([(loss_weights or {}).get(label, 1.0) for label in labels])
        self.register_buffer("kind_weights", weights, persistent=False)
        self.decoding = decoding or Decoding()
        self.ranker, self.stopping = ranker or Verifier(), stopping
        self.base: dict[str, Any] | None = None
        self._built: str | None = None
        self.kept: NDArray[np.int32] | None = None
        self._recent, self._logged = Recent(), 0
        self.means: dict[str, float] = {}
        self._models: ModelEnsemble | None = None
        self.strict_loading = not self.uses_lora
        self.configure_metrics()

    @property
    def uses_lora(self) -> bool:
        """Whether only an adapter is trained."""
        return self.lora is not None or self.adapter_path is not None

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The causal language model, with its adapter's layers in place."""
        return without_wrapper(self.model)

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """The weights that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def name_of_model(self) -> str:
        """The source that generated candidates name."""
        return Path(self.adapter_path or self.model_path or "scratch").name

    @property
    def source(self) -> str:
        """Where the weights came from."""
        loaded = None if self._trainer is None else self._trainer.ckpt_path
        return str(loaded or self.adapter_path or self.model_path or "model.scratch")

    @property
    def models(self) -> ModelEnsemble:
        """The members of the ensemble, until the prediction ends."""
        if self._models is None:
            is_base = self.uses_lora or fingerprint(self.model) == self._built
            base = self.base if is_base else None
            self._models = ModelEnsemble(self.model, self.ensemble, self._load, base, self.source)
        return self._models

    @property
    def signature(self) -> str:
        """Name of all weights as they are now, of the decoding, and of the test-time training."""
        settings: list[Any] = [self.decoding] if self.test_time is None else [self.decoding, self.test_time]
        if self.test_time is not None and self.kind_weights.ne(1).any():
            settings.append(self.kind_weights.tolist())
        return "-".join([self.models.fingerprint, *map(str, settings)])

    def configure_model(self) -> None:
        """Load or build the model, once."""
        if not hasattr(self, "model"):
            if self.int8_products and self.trainer.strategy.root_device.type != "cpu":
                raise DataError("model.int8_products: runs on a CPU (--trainer.accelerator cpu)")
            data: ArcDataModule | None = getattr(self.trainer, "datamodule", None)
            kept = data.prompt_encoder.kept if self.trim_vocabulary and data is not None else None
            self.build(str(self.trainer.precision), kept)
            if data is not None:
                check_positions(self.causal_lm, data.options.max_seq_len, data.prompt_encoder.grid_positions)

    def build(self, precision: str = "32-true", kept: NDArray[np.int32] | None = None) -> None:
        """Load or build the model.

        Args:
            precision: as the trainer names it.
            kept: token ids whose rows are kept; ``None`` keeps all.
        """
        self.kept = kept
        if self.model_path is None:
            base = new_model(self.scratch or Scratch(), load_tokenizer(None))
        else:
            dtype = base_type(precision, self.model_path, self.uses_lora)
            base = load_base(self.model_path, dtype, self.quantize)
            self.base = name_of_base(base, self.model_path, fingerprint(base))
            if self.adapter_path is not None:
                check_base_of_folder(self.adapter_path, self.base)
        self.prepare(base)
        self._built = fingerprint(base)
        self.model = add_lora(base, self.lora, self.adapter_path) if self.uses_lora else base
        use_fast_lora(self.model)
        if self.int8_products:
            use_int8_products(self.causal_lm)

    def _load(self, path: str) -> PreTrainedModel:
        """Load a whole model that is asked beside this one."""
        model = load_base(path, self.causal_lm.dtype)
        self.prepare(model)
        if self.int8_products:
            use_int8_products(model)
        return model.eval()

    def prepare(self, base: PreTrainedModel) -> None:
        """Trim a model's vocabulary, let it attend to trees, and apply the settings of its computation."""
        with proved(base, self.kept, self.attention):
            if self.kept is not None:
                trim(base, self.kept)
            use_tree_attention(base)
            use_fast_layers(base)
        if self.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        if self.compiles:
            for layer in base.get_decoder().layers:
                layer.compile(dynamic=True)

    def configure_metrics(self) -> None:
        """Make the validation metrics."""
        self.metrics = ValidationMetrics(self.ranker)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer and its schedule."""
        settings = self.learning_rate, self.weight_decay, self.betas
        # With a gradient scaler, which 16-bit floats need, a fused optimizer does not allow gradient clipping.
        fused = not str(self.trainer.precision).startswith("16")
        ends = end_weights(self.causal_lm)
        optimizer = make_optimizer(self.optimizer_name, self.trained, *settings, fused=fused, embeddings=ends)
        schedule = make_schedule(self.schedule, optimizer, self.warmup_steps, self.trainer.estimated_stepping_batches)
        name = "train/learning_rate"  # as which it is logged
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": name}}

    def on_train_start(self) -> None:
        """Let training that continues go on with the present settings of the optimizer and its schedule."""
        if self.trainer.ckpt_path is not None:
            schedule = self.lr_schedulers()
            assert isinstance(schedule, LambdaLR)  # as `make_schedule` makes it
            use_settings(schedule, self.learning_rate, self.weight_decay, self.betas)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients of a fused optimizer too, which Lightning refuses because a scaler might be in use."""
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or GradClipAlgorithmType.NORM)
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def training_step(self, batch: TreeBatch, batch_idx: int) -> Tensor:
        """Return the loss: per prompt kind the weighted mean over its targets, summed with the kinds' weights."""
        loss, sums, totals = batch_loss(self.causal_lm, batch, self.trained, self.kind_weights, self.attention)
        for kind in batch.kinds:
            of_kind = {"loss": sums[0, kind] / totals[kind], "accuracy": sums[1, kind] / totals[kind]}
            self._recent.add({f"train/{kind.label}/{name}": value for name, value in of_kind.items()})
        self._recent.add({"train/loss": loss} | {f"workload/{name}": value for name, value in batch.stats.items()})
        # Not in the progress bar, for which Lightning would wait for a GPU in every step.
        self.log("train/loss", loss.detach(), logger=False, batch_size=len(batch.shapes))
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Compute the norm of the gradients before they are clipped, in the steps that are logged."""
        gradients = [p.grad for p in self.trained if p.grad is not None]
        if gradients and (self.global_step + 1) % typed_trainer(self.trainer).log_every_n_steps == 0:
            self._recent.add({"train/gradient_norm": torch.nn.utils.get_total_norm(gradients)})

    def on_train_batch_end(self, outputs: Any, batch: TreeBatch, batch_idx: int) -> None:
        """Log means over the steps since the last time; a single step has few prompts of each kind."""
        self.log_means()

    def log_means(self) -> None:
        """Log the means that are due in this step, unless they have been logged."""
        due = self.global_step % typed_trainer(self.trainer).log_every_n_steps == 0
        if due and self.global_step != self._logged:
            self._logged = self.global_step
            self.means = self._recent.means()
            for logger in self.loggers:
                logger.log_metrics(self.means, self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Begin with empty metrics."""
        self.metrics.reset()

    def forward(self, batch: TreeBatch) -> BranchScores:
        """Return the scores of a batch's branches."""
        return score_batch(self.causal_lm, batch, self.attention)

    def validation_step(  # type: ignore[override]  # Lightning hands any result to callbacks
        self, batch: TreeBatch, batch_idx: int
    ) -> list[dict[str, Any]]:
        """Update the metrics; return ``{"episode", "log_odds", "answers"}`` per judged tree for pictures."""
        outputs = []
        scores = self(batch)
        for i, (shape, info) in enumerate(zip(batch.shapes, batch.info, strict=True)):
            own = scores.select(batch.rows(i))
            self.metrics.update(shape, own, info)
            if any(correct >= 0 for correct in shape.correct):
                judged = {"log_odds": own.log_odds.cpu(), "answers": torch.tensor(shape.answers)}
                outputs.append({"episode": info["episode"], **judged})
        return outputs

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, where an episode was short enough to be judged."""
        found = self.metrics.compute(partial(self.trainer.strategy.reduce, reduce_op="sum"))
        if not found:
            rank_zero_warn("data.max_seq_len: no validation episode is that short, so that there are no metrics")
        training = self.trainer.state.fn == "fit"
        self.log_dict(found, logger=not training)
        if training and not self.trainer.sanity_checking:
            # Lightning logs these metrics one step earlier.
            values = {name: float(value) for name, value in found.items()}
            for logger in self.loggers:
                logger.log_metrics(values, self.global_step)

    def setup(self, stage: str) -> None:
        """Undo what an interrupted prediction changed, and refuse settings that contradict each other."""
        self.teardown(stage)
        if stage != "predict":
            return
        if isinstance(self.ranker, Fitted) and self.ranker.path is None:
            warn_of_other_model(self.source)
        data: ArcDataModule | None = getattr(self.trainer, "datamodule", None)
        if data is not None:
            scope = None if self.test_time is None else self.test_time.scope
            check_prediction(data.options, bool(self.ensemble), scope)

    def teardown(self, stage: str) -> None:
        """Leave the model as it was before a prediction."""
        if self._models is not None:
            self._models.close()
            self._models = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is not trained, and name the base that belongs to it."""
        if self.uses_lora:
            trained = {name for name, p in self.named_parameters() if p.requires_grad}
            checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
            checkpoint["base"] = self.base
        elif self.kept is not None:
            checkpoint["kept_tokens"] = self.kept.tolist()
        adapter = self.model.peft_config["default"] if isinstance(self.model, PeftModel) else None
        lora = adapter if isinstance(adapter, LoraConfig) else None
        checkpoint["hyper_parameters"] = settings_to_save(self.hparams, lora)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that belongs to another model, see `check_checkpoint`."""
        kept = None if self.kept is None else self.kept.tolist()
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        base = self.base if self.uses_lora else None
        check_checkpoint(checkpoint, base, kept, trained, self.state_dict())
