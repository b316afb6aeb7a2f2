"""An ensemble: the models that score in a prediction, with their adapters and their test-time training."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from lightning_arc.errors import DataError, first_line
from lightning_arc.model.adapter_folder import adapter_config
from lightning_arc.model.adapters import Adapters
from lightning_arc.model.base_name import check_base, check_base_of_folder
from lightning_arc.model.checkpoint import is_archive, read_checkpoint
from lightning_arc.model.finite import check_finite
from lightning_arc.model.hyper_parameters import saved_settings
from lightning_arc.model.load import Lora, changes_base, fingerprint, lora_config, moved
from lightning_arc.model.ttt import TestTimeResult, TestTimeTrainer, TrainingBatches
from lightning_arc.model.vocabulary import end_weights
from lightning_arc.prompt.positions import has_grid_positions
from lightning_arc.prompt.tokenizer import is_gguf


@dataclass(frozen=True)
class Member:
    """A model of an ensemble.

    Args:
        adapters: the model, which several members may share, and all adapters on it.
        names: names of this member's active adapters.
        fingerprint: fingerprint of its weights.
    """

    adapters: Adapters
    names: tuple[str, ...]
    fingerprint: str


class ModelEnsemble:
    """The members of an ensemble, which are asked one at a time; without others the first is the only member.

    Args:
        model: the first member, with the adapter that it came with.
        others: folders of adapters that peft saved, checkpoints of trainings from the same base, and folders of whole
            models that read the same tokens.
        load: loads a whole model from a folder, ready to be asked.
        base: name of the base that adapters must have been trained on, see `name_of_base`; ``None`` without one.
        source: where the first member's weights came from.

    Raises:
        DataError: names one of the others that cannot be loaded, or whose weights are not finite.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        others: Sequence[str] = (),
        load: Callable[[str], PreTrainedModel] | None = None,
        base: Mapping[str, Any] | None = None,
        source: str = "model",
    ) -> None:
        check_finite(model.named_parameters(), source)
        first = fingerprint(model)
        own = Adapters(model)
        both = [(path, None if is_gguf(path) else _read(path)) for path in others]
        # Before adapters are added, because whole members are copied from this model.
        whole = {path: _whole(path, found, own, load) for path, found in both if _is_whole(path, found)}
        self.members = [Member(own, own.own, first)]
        for number, (path, found) in enumerate(both, 1):
            if path in whole:
                check_finite(whole[path].named_parameters(), path)
                self.members.append(Member(Adapters(whole[path]), (), fingerprint(whole[path])))
                continue
            name = f"member{number}"
            _add(own, name, path, found, base)
            check_finite(own.weights(name).items(), path)
            weights = torch.nn.ParameterDict({key.replace(".", "/"): p for key, p in own.weights(name).items()})
            self.members.append(Member(own, (name,), fingerprint(weights)))
        for member in self.members:
            member.adapters.model.eval()  # added adapters start in training mode, with dropout
        self._trainers: dict[int, TestTimeTrainer] = {}

    @property
    def fingerprint(self) -> str:
        """Name of the weights of all members."""
        return "+".join(member.fingerprint for member in self.members)

    def add_trainers(self, make: Callable[[Adapters], TestTimeTrainer]) -> None:
        """Give every member's model a trainer, unless it has one."""
        for adapters in {id(m.adapters): m.adapters for m in self.members}.values():
            if id(adapters) not in self._trainers:
                self._trainers[id(adapters)] = make(adapters)

    def adapt(self, number: int, dataset: TrainingBatches) -> TestTimeResult:
        """Train a member at test time; return the outcome."""
        member = self.members[number]
        name = f"{dataset.name}@member{number}" if number else dataset.name
        return self._trainers[id(member.adapters)].adapt(name, dataset, member.names)

    @contextmanager
    def activate(self, number: int, adapted: bool = False) -> Iterator[PreTrainedModel]:
        """Yield a member's model, with the result of its latest test-time training if ``adapted``."""
        member = self.members[number]
        trainer = self._trainers[id(member.adapters)] if adapted else None
        with trainer.adapted(member.names) if trainer else member.adapters.in_use(member.names) as model:
            yield model

    def close(self) -> None:
        """Take off all adapters that the first member did not come with."""
        self.members[0].adapters.remove()


def _read(path: str) -> dict[str, Any] | None:
    """Return what a checkpoint holds, ``None`` for a folder."""
    if Path(path).is_dir() or path == "bundled":
        return None
    if not Path(path).is_file() or not is_archive(path):
        raise DataError(f"{path}: no adapter, checkpoint or model (model.ensemble)")
    return read_checkpoint(path, "model.ensemble")


def _is_whole(path: str, found: dict[str, Any] | None) -> bool:
    if found is None:
        return not (Path(path) / "adapter_config.json").is_file()
    return not found.get("base")


def _whole(
    path: str, found: dict[str, Any] | None, own: Adapters, load: Callable[[str], PreTrainedModel] | None
) -> PreTrainedModel:
    """Return a whole model; for a checkpoint, a copy of the first member with the checkpoint's weights."""
    if found is None:
        assert load is not None  # given wherever whole models may be
        model = load(path)
        if len(end_weights(model)[0]) != len(end_weights(own.model)[0]):
            raise DataError(f"{path}: reads other tokens than the first model (model.ensemble)")
        if has_grid_positions(model.config.to_dict()) != has_grid_positions(own.model.config.to_dict()):
            raise DataError(f"{path}: takes other positions than the first model (model.ensemble)")
        return moved(model, own.model.device)
    if own.peft is not None:
        raise DataError(f"{path}: holds all weights, the model is asked with an adapter (model.ensemble)")
    model = copy.deepcopy(own.model)
    try:
        model.load_state_dict({key.removeprefix("model."): value for key, value in found["state_dict"].items()})
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{path}: not a checkpoint of this model (model.ensemble): {first_line(error)}") from error
    return model


def _add(own: Adapters, name: str, path: str, found: dict[str, Any] | None, base: Mapping[str, Any] | None) -> None:
    """Add the adapter of a folder or a checkpoint."""
    try:
        if found is not None and base is not None:
            check_base(found["base"], base, path, "model.ensemble")
        elif found is not None:
            named = found["base"]["model_path"]
            raise DataError(f"{path}: was trained on {named}, the first model has other weights (model.ensemble)")
        elif base is not None:
            check_base_of_folder(path, base, "model.ensemble")
        settings: dict[str, Any] = {"adapter_path": path} if found is None else saved_settings(found, path)
        lora, folder = settings.get("lora"), settings.get("adapter_path")
        config = adapter_config(folder) if folder else lora_config(Lora(**(lora or {})))
        if any(changes_base(c) for c in (config, *(own.peft.peft_config.values() if own.peft else ()))):
            raise DataError(f"{path}: an adapter that changes its base shares it with no other one (model.ensemble)")
        if found is None:
            own.load(name, path)
            return
        config.inference_mode = False
        weights = own.add(name, config)
        saved = {key.removeprefix("model."): value for key, value in found["state_dict"].items()}
        with torch.no_grad():
            for key, p in weights.items():
                p.copy_(saved[key.replace(f".{name}.", ".default.")])
    except DataError as error:
        text = str(error)
        raise DataError(text if text.endswith("(model.ensemble)") else f"{text} (model.ensemble)") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path}: no adapter could be loaded (model.ensemble): {first_line(error)}") from error
