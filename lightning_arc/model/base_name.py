"""The name of an adapter's base: its shape, which releases share, and the fingerprint of its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedModel

from lightning_arc.errors import DataError, first_line

FILE = "base_model.json"
"""Where the folder of an adapter names its base."""

SHAPE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
)
"""Settings of a model's configuration that all of its releases share, whatever the type of their weights."""


def name_of_base(model: PreTrainedModel, model_path: str | None, fingerprint: str) -> dict[str, Any]:
    """Return the name of a base: numbers and strings by key.

    Args:
        model: the base, with all its tokens.
        model_path: where it came from.
        fingerprint: fingerprint of its weights.
    """
    config = model.config.get_text_config()
    shape = {name: getattr(config, name, None) for name in SHAPE}
    named = {"model_path": model_path, "fingerprint": fingerprint, "architecture": type(model).__name__}
    return named | {name: value for name, value in shape.items() if isinstance(value, int)}


def check_base(saved: Any, base: Mapping[str, Any], source: str, option: str = "model.model_path") -> None:
    """Refuse an adapter of another model; warn where the model is the same and its weights are not.

    Args:
        saved: name of the base that the adapter was trained on; in files of earlier versions it has no shape.
        base: name of this base, see `name_of_base`.
        source: file or folder of the adapter, for messages.
        option: the setting that is wrong, for messages.

    Raises:
        DataError: names what differs.
    """
    saved = saved if isinstance(saved, Mapping) else {}
    if saved.get("fingerprint") == base["fingerprint"]:
        return
    names = ("architecture", *SHAPE)
    other = [name for name in names if name in {*saved, *base} and saved.get(name) != base.get(name)]
    old = "architecture" not in saved
    which = "fingerprint" if old else other[0] if other else None
    if which is not None:
        trained, here = (f"{_short(each.get('model_path'))} ({_value(each, which)})" for each in (saved, base))
        raise DataError(f"{option}: {source} belongs to {trained}, this is {here}")
    rank_zero_warn(
        f"{source} was trained on {_short(saved.get('model_path'))} ({_short(saved.get('fingerprint'))}); "
        f"{base['model_path']} ({base['fingerprint']}) is the same model with other weights"
    )


def write_base(folder: str | Path, base: Mapping[str, Any]) -> None:
    """Write the name of its base into an adapter's folder."""
    (Path(folder) / FILE).write_text(json.dumps(base, indent=2) + "\n", encoding="utf-8")


def check_base_of_folder(folder: str | Path, base: Mapping[str, Any], option: str = "model.model_path") -> None:
    """Refuse the folder of an adapter of another model, see `check_base`; one that names no base is let through.

    Raises:
        DataError: names what differs, or that the file cannot be read.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return
    try:
        saved = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {first_line(error)}") from error
    check_base(saved, base, str(folder), option)


def _value(named: Mapping[str, Any], which: str) -> str:
    value = _short(named.get(which))
    return value if which == "fingerprint" else f"{which} {value}"


def _short(value: Any) -> str:
    return str(value)[:80]
