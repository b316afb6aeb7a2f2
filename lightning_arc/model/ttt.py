"""Test-time training: trains a fresh LoRA adapter, or a copy of all weights, on demonstrations before prediction."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_info
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from transformers import PreTrainedModel

from lightning_arc.arc.io.files import whole_file
from lightning_arc.data.batch import TreeBatch
from lightning_arc.errors import DataError
from lightning_arc.model.adapters import Adapters
from lightning_arc.model.finite import not_finite
from lightning_arc.model.optimizers import make_optimizer
from lightning_arc.model.ttt_weights import AdapterWeights, CopiedWeights

LONGEST_GRADIENT = 1.0
"""Gradients are clipped to this norm."""

AVERAGES = {"adamw": ("step", "exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}
"""Names of an optimizer's averages for each weight."""

SAVE_SECONDS = 60.0
"""Seconds between saves of a training's state, from which an interrupted training continues."""


@dataclass(frozen=True)
class TestTimeTrainingConfig:
    """How a model is trained on demonstrations (Sun et al., 2020; for ARC, Akyürek et al., 2024).

    Args:
        scope: ``task`` trains for each task alone, on its demonstrations; ``set`` for all tasks that are predicted, on
            all their demonstrations, before the first request.
        weights: ``adapter`` trains a fresh LoRA; ``all`` a copy of all weights, of a model without an adapter: faster
            where the model is small.
        optimizer: ``adamw``; or ``muon`` for the matrices of layers, with AdamW for the rest.
        steps: most steps; 0 leaves the model as it is.
        max_seconds: most seconds of training, each task's or the set's; ``null`` for no limit. With a limit the result
            depends on the machine.
        trees: prompts a step, each with the right output and wrong ones.
        learning_rate: constant for a task; for a set it falls in a line to 0 at the last step or second.
        r: rank of an adapter.
        alpha: its scale; the update is multiplied by ``alpha / sqrt(r)``.
        target_modules: names of the linear layers that have one, or ``all-linear``.

    Raises:
        DataError: names the invalid setting.
    """

    scope: Literal["task", "set"] = "task"
    weights: Literal["adapter", "all"] = "adapter"
    optimizer: Literal["adamw", "muon"] = "adamw"
    steps: int = 16
    max_seconds: float | None = None
    trees: int = 2
    learning_rate: float = 2e-4
    r: int = 16
    alpha: int = 16
    target_modules: list[str] | str = "all-linear"

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("trees", 1), ("r", 1), ("alpha", 1)):
            if getattr(self, name) < least:
                raise DataError(f"model.test_time.{name} is {getattr(self, name)}, expected at least {least}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise DataError(f"model.test_time.max_seconds is {self.max_seconds}, expected more than 0")
        if not 0 < self.learning_rate < float("inf"):
            raise DataError(f"model.test_time.learning_rate is {self.learning_rate}, expected more than 0")

    def rate(self, step: int, seconds: float) -> float:
        """Return the learning rate of a step, ``seconds`` after the first one began; 0 if there is none."""
        timed = self.max_seconds is not None and seconds >= self.max_seconds
        if step >= self.steps or timed:
            return 0.0
        done = max(step / self.steps, seconds / (self.max_seconds or float("inf")))
        return self.learning_rate * (1 - done if self.scope == "set" else 1)


class TrainingBatches(Protocol):
    """Training batches by number, see `lightning_arc.data.ttt.TestTimeDataset`."""

    @property
    def name(self) -> str:
        """A file name for the dataset."""

    @property
    def seed(self) -> int:
        """For random choices."""

    def batch(self, number: int, n_trees: int) -> TreeBatch | None:
        """Return a training batch, ``None`` if there is none."""


class TestTimeResult(NamedTuple):
    """The outcome of a training.

    Args:
        tokens: tokens of the training, 0 if its result was read from a file.
        diverged: whether its loss or its weights were not finite, so that it was discarded.
        seconds: seconds of the training, including those before an interruption.
    """

    tokens: int
    diverged: bool = False
    seconds: float = 0.0


Loss = Callable[[PreTrainedModel, TreeBatch, list[Parameter]], Tensor]
"""Computes the loss of a model on a batch, given the trained parameters."""


class TestTimeTrainer:
    """Trains an adapter, or a copy of all weights, at test time; the model's own weights never change.

    Unless a time limit ends the training, its result is a pure function of the settings, the model and the dataset. The
    result is saved in a folder and read from there when it is needed again, in this run or in one that goes on from it.
    A longer training saves its state every minute and goes on from there after an interruption.

    Args:
        adapters: the model's adapters.
        settings: how it is trained.
        loss: the loss to minimize.
        folder: where results are saved, one file per dataset.
        signature: identifies everything that a result depends on; files with another signature are not used.
    """

    def __init__(
        self, adapters: Adapters, settings: TestTimeTrainingConfig, loss: Loss, folder: Path, signature: str
    ) -> None:
        self.adapters, self.settings, self.loss = adapters, settings, loss
        self.folder, self.signature = folder, signature
        if settings.weights == "all":
            self._trained: AdapterWeights | CopiedWeights = CopiedWeights(adapters)
        else:
            self._trained = AdapterWeights(adapters, settings.r, settings.alpha, settings.target_modules)
        self._weights = self._trained.weights
        self._present: str | None = None
        self._diverged: set[str] = set()

    @contextmanager
    def adapted(self, beneath: Sequence[str] = ()) -> Iterator[PreTrainedModel]:
        """Yield the model with the latest result, on top of the adapters ``beneath``."""
        with self._trained.in_use(beneath) as model:
            yield model

    def adapt(self, name: str, dataset: TrainingBatches, beneath: Sequence[str] = ()) -> TestTimeResult:
        """Train on a dataset, or read the result of an earlier training.

        Args:
            name: names the result's file.
            dataset: gives a batch for each step.
            beneath: adapters that are active beneath the trained weights.

        Returns:
            Tokens and seconds of the training, and whether it diverged; a diverged training is discarded.
        """
        if name == self._present:
            return TestTimeResult(0)
        if name in self._diverged:
            return TestTimeResult(0, diverged=True)
        self._present = None
        path = self.folder / f"{name}.safetensors"
        if self._read(path):
            self._trained.finish()
            self._present = name
            return TestTimeResult(0)
        torch.clear_autocast_cache()  # casts of weights that were made without gradients have none
        with torch.enable_grad():
            self._trained.reset(dataset.seed)
            result = self._train(dataset, beneath, path.with_suffix(".training"))
        torch.clear_autocast_cache()
        if result.diverged:
            self._diverged.add(name)
            return result
        self._write(path, {key: p.detach() for key, p in self._weights.items()}, {})
        self._trained.finish()
        path.with_suffix(".training").unlink(missing_ok=True)
        self._present = name
        return result

    def _train(self, dataset: TrainingBatches, beneath: Sequence[str], saved: Path) -> TestTimeResult:
        """Train, from where an interrupted training was saved if there is one."""
        trained, settings = list(self._weights.values()), self.settings
        optimizer = make_optimizer(
            settings.optimizer,
            trained,
            settings.learning_rate,
            weight_decay=0.0,
            betas=(0.9, 0.95),
            embeddings=self._trained.embeddings,
        )
        step, seconds, tokens = self._resume(optimizer, saved)
        start = time.monotonic() - seconds
        last_saved, finite = seconds, torch.ones((), dtype=torch.bool, device=trained[0].device)
        with self.adapted(beneath) as model, _checkpointing(model):
            for p in trained:
                p.requires_grad_(True)
            while rate := settings.rate(step, seconds):
                batch = dataset.batch(step, settings.trees)
                if batch is None:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = self.loss(model, batch.to(trained[0].device), trained)
                finite &= loss.detach().isfinite()
                loss.backward()
                clip_grad_norm_(trained, LONGEST_GRADIENT)
                optimizer.step()
                torch.clear_autocast_cache()  # which may hold 16-bit copies of the weights before this step
                optimizer.zero_grad()
                step, tokens, seconds = step + 1, tokens + sum(batch.n_tokens), time.monotonic() - start
                if seconds - last_saved > SAVE_SECONDS:
                    last_saved = seconds
                    if not finite:
                        break
                    self._save(optimizer, saved, step, seconds, tokens)
                    limit = f" of {settings.max_seconds:.0f}" if settings.max_seconds else ""
                    rank_zero_info(
                        f"Test-time training: step {step} of {settings.steps}, {seconds:.0f}{limit} s, loss {loss:.3f}"
                    )
        return TestTimeResult(tokens, not finite or bool(not_finite(self._weights.items())), seconds)

    def _save(self, optimizer: Optimizer, path: Path, step: int, seconds: float, tokens: int) -> None:
        tensors = {f"weight/{key}": p.detach() for key, p in self._weights.items()}
        averages = _averages(optimizer)
        tensors |= {
            f"{part}/{key}": optimizer.state[p][part] for key, p in self._weights.items() for part in averages[p]
        }
        progress = {"step": str(step), "seconds": str(seconds), "tokens": str(tokens)}
        self._write(path, tensors, progress)

    def _resume(self, optimizer: Optimizer, path: Path) -> tuple[int, float, int]:
        """Load the state of an interrupted training; return its steps, seconds and tokens, 0 if there is none."""
        shapes: dict[str, Sequence[int]] = {f"weight/{key}": p.shape for key, p in self._weights.items()}
        averages = _averages(optimizer)
        for key, p in self._weights.items():
            shapes |= {f"{part}/{key}": () if part == "step" else p.shape for part in averages[p]}
        found = self._load(path, shapes)
        if found is None:
            return 0, 0.0, 0
        tensors, progress = found
        try:
            done = int(progress["step"]), float(progress["seconds"]), int(progress["tokens"])
        except (KeyError, ValueError):
            return 0, 0.0, 0
        with torch.no_grad():
            for key, p in self._weights.items():
                p.copy_(tensors[f"weight/{key}"])
                optimizer.state[p] = {part: tensors[f"{part}/{key}"].to(p.device, copy=True) for part in averages[p]}
        return done

    def _read(self, path: Path) -> bool:
        """Load the result of the same training from a file; return whether there is one."""
        found = self._load(path, {key: p.shape for key, p in self._weights.items()})
        if found is None:
            return False
        with torch.no_grad():
            for key, p in self._weights.items():
                p.copy_(found[0][key])
        return True

    def _write(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        own = {name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()}
        with whole_file(path) as temporary:
            temporary.write_bytes(save(own, {"signature": self.signature, **about}))

    def _load(self, path: Path, shapes: Mapping[str, Sequence[int]]) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Return a file's tensors by name and its metadata; ``None`` if it is damaged or from another training."""
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                if about.get("signature") != self.signature or {*file.keys()} != {*shapes}:
                    return None
                tensors = {name: file.get_tensor(name) for name in shapes}
        except (OSError, RuntimeError, SafetensorError):
            return None
        fits = all(tuple(tensors[name].shape) == tuple(shape) for name, shape in shapes.items())
        return (tensors, about) if fits else None


def _averages(optimizer: Optimizer) -> dict[Parameter, tuple[str, ...]]:
    """Return, for each weight, the names of the averages that an optimizer keeps."""
    only = "muon" if isinstance(optimizer, torch.optim.Muon) else "adamw"
    groups = optimizer.param_groups
    return {p: AVERAGES[group.get("update", only)] for group in groups for p in group["params"]}


@contextmanager
def _checkpointing(model: PreTrainedModel) -> Iterator[None]:
    """Enable gradient checkpointing if the model uses it; modules inside the layers stay in evaluation mode."""
    layers = [layer for layer in model.modules() if getattr(layer, "gradient_checkpointing", False)]
    were = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, was in zip(layers, were, strict=True):
            layer.training = was
