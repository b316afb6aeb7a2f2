"""Model settings in checkpoints: which are saved, how they are read from an untrusted file, and which cannot change."""

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning.pytorch.utilities import rank_zero_warn
from peft import LoraConfig

from lightning_arc.errors import DataError
from lightning_arc.model.load import Lora, Scratch, changes_base, lora_config
from lightning_arc.model.optimizers import OptimizerName, ScheduleName

SAVED: dict[str, Any] = {
    "model_path": str | None,
    "scratch": Scratch | None,
    "lora": Lora | None,
    "adapter_path": str | None,
    "quantize": Literal["4bit"] | None,
    "trim_vocabulary": bool,
    "optimizer": OptimizerName,
    "learning_rate": float,
    "weight_decay": float,
    "betas": tuple[float, float],
    "schedule": ScheduleName,
    "warmup_steps": int,
    "loss_weights": dict[str, float] | None,
}
"""The settings of `ArcModel` that say what was trained and how, with their types."""

NOT_SAVED = (
    "attention",
    "gradient_checkpointing",
    "int8_products",
    "compile",
    "decoding",
    "ranker",
    "stopping",
    "ensemble",
    "test_time",
)
"""The settings of `ArcModel` that say how a model is run; they may differ from the checkpoint's."""

FIXED_LORA = ("r", "target_modules", "use_dora", "init")
"""Settings of an adapter that cannot change once it is trained; scale and dropout can."""

FIXED_SCRATCH = ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "rope_theta", "positions")
"""Settings of a model from scratch that cannot change once it is trained."""


def check_model_settings(
    model_path: str | None, adapts: bool, quantize: str | None, trim_vocabulary: bool, compiles_int8: bool
) -> None:
    """Refuse settings of a model that do not go together.

    Args:
        model_path: as in `ArcModel`.
        adapts: whether an adapter is trained.
        quantize: as in `ArcModel`.
        trim_vocabulary: as in `ArcModel`.
        compiles_int8: whether both ``int8_products`` and ``compile`` are set.

    Raises:
        DataError: names the setting.
    """
    if compiles_int8:
        raise DataError("model.compile: layers with model.int8_products are not compiled; leave one of them out")
    if model_path is None and adapts:
        raise DataError("model.model_path: LoRA needs a model to adapt")
    if quantize is not None and not adapts:
        raise DataError("model.quantize: weights of 4 bits are not trained; an adapter on them is (model.lora)")
    if model_path is None and trim_vocabulary:
        raise DataError("model.trim_vocabulary: a model from scratch has no token to spare")


def check_training_settings(
    learning_rate: float, weight_decay: float, betas: tuple[float, float], warmup_steps: int, lora: Lora | None
) -> None:
    """Refuse settings of `ArcModel` that no training can have.

    Raises:
        DataError: names the setting.
    """
    dropout = 0.0 if lora is None else lora.dropout
    for name, value, possible, expected in (
        ("learning_rate", learning_rate, 0 < learning_rate < math.inf, "more than 0"),
        ("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "0 or more"),
        ("betas", list(betas), all(0 <= beta < 1 for beta in betas), "two of at least 0 and less than 1"),
        ("warmup_steps", warmup_steps, warmup_steps >= 0, "0 or more"),
        ("lora.dropout", dropout, 0 <= dropout < 1, "at least 0 and less than 1"),
    ):
        if not possible:
            raise DataError(f"model.{name} is {value}, expected {expected}")


def settings_to_save(settings: Mapping[str, Any], adapter: LoraConfig | None = None) -> dict[str, Any]:
    """Return settings as a checkpoint holds them: numbers, strings, booleans, and lists and dicts of these.

    Args:
        settings: of the model.
        adapter: peft's settings of the trained adapter; with them, loading the checkpoint does not need its folder.
    """
    saved = {name: _plain(settings[name]) for name in SAVED if name in settings}
    if "_instantiator" in settings:
        saved["_instantiator"] = settings["_instantiator"]  # by which `load_from_checkpoint` makes the model
    if saved.get("adapter_path") is not None and adapter is not None:
        lora = _lora(adapter)
        saved |= {} if lora is None else {"lora": asdict(lora), "adapter_path": None}
    return saved


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _lora(config: LoraConfig) -> Lora | None:
    """Return the settings that make an adapter like a loaded one, ``None`` if there are none."""
    if changes_base(config):
        return None
    modules = config.target_modules
    lora = Lora(
        r=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        target_modules=modules if isinstance(modules, str) else sorted(modules or ()),
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
    )
    weightless = {"base_model_name_or_path", "inference_mode", "init_lora_weights", "peft_version", "revision"}
    weightless |= {"auto_mapping", "task_type", "target_modules"}
    mine, theirs = lora_config(lora).to_dict(), config.to_dict()
    alike = all(mine.get(name) == value for name, value in theirs.items() if name not in weightless)
    return lora if alike else None


def saved_settings(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the model settings that a checkpoint holds. Unknown names are passed over with a warning.

    Raises:
        DataError: names a setting whose value is not of its type. A class path never is.
    """
    held = checkpoint.get("hyper_parameters", {})
    if not isinstance(held, Mapping):
        raise DataError(f"{path}: hyper_parameters are {_short(held)}, expected settings by name (ckpt_path)")
    unknown = [str(name)[:80] for name in held if name not in (*SAVED, *NOT_SAVED, "_instantiator")]
    if unknown:
        rank_zero_warn(
            f"{path}: passed over {', '.join(unknown[:5])}, no settings that a checkpoint brings (ckpt_path)"
        )
    settings = {name: held[name] for name in SAVED if name in held}
    for name, value in settings.items():
        if not _is(value, SAVED[name]):
            raise DataError(f"{path}: hyper_parameters.{name} is {_short(value)}, not a value of model.{name}")
    return settings


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is plain data of a type."""
    origin, of = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is(value, each) for each in of)
    if origin is Literal:
        return isinstance(value, str) and value in of
    if origin is tuple:
        return isinstance(value, (list, tuple)) and len(value) == len(of) and all(map(_is, value, of))
    if origin is list:
        return isinstance(value, list) and all(_is(each, of[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(k, of[0]) and _is(v, of[1]) for k, v in value.items())
    if is_dataclass(kind):
        fields = get_type_hints(kind)
        return isinstance(value, dict) and all(name in fields and _is(value[name], fields[name]) for name in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def check_unchanged(saved: Mapping[str, Any], now: Mapping[str, Any], path: str, training: bool) -> None:
    """Refuse settings that differ from those that a checkpoint was trained with and cannot change.

    Args:
        saved: what `saved_settings` returned.
        now: the settings of the model, as plain data.
        path: of the checkpoint, for messages.
        training: whether its training continues, with the optimizer's averages.

    Raises:
        DataError: names the setting, its value and the checkpoint's.
    """

    def same(name: str, was: Any, value: Any) -> None:
        if was != value:
            raise DataError(f"model.{name} is {_short(value)}, {path} was trained with {_short(was)}: it cannot change")

    adapter, adapted = (each.get("adapter_path") or each.get("lora") for each in (now, saved))
    if "lora" in saved and (adapter is None) != (adapted is None):
        same("adapter_path" if now.get("adapter_path") else "lora", adapted, adapter)
    if "model_path" in saved and (saved["model_path"] is None) != (now["model_path"] is None):
        same("model_path", saved["model_path"], now["model_path"])
    if "scratch" in saved and now["model_path"] is None:
        was, size = (asdict(Scratch(**(each["scratch"] or {}))) for each in (saved, now))
        for name in FIXED_SCRATCH:
            same(f"scratch.{name}", was[name], size[name])
    if saved.get("lora") is not None and now["lora"] is not None and now["adapter_path"] is None:
        was, lora = (asdict(Lora(**each["lora"])) for each in (saved, now))
        for name in FIXED_LORA:
            same(f"lora.{name}", _unordered(was[name]), _unordered(lora[name]))
    fixed = ["trim_vocabulary"] if adapter is None else ["quantize"]
    for name in fixed + ["optimizer"] * training:
        if name in saved:
            same(name, saved[name], now[name])


def _unordered(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
