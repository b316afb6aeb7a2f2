"""Folders of LoRA adapters as peft writes them: checks before and after peft loads one."""

import json
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from lightning_arc.errors import DataError, first_line

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def adapter_config(folder: str | Path) -> LoraConfig:
    """Read the settings of a LoRA adapter.

    Raises:
        DataError: if there are none, or if with them peft would do something other than LoRA.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise DataError(f"{folder}: expected a folder with {CONFIG} and {WEIGHTS}")
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {first_line(error)}") from error
    kind = settings.get("peft_type") if isinstance(settings, dict) else None
    if kind != "LORA":
        raise DataError(f"{path}: peft_type is {kind!r}, expected 'LORA'")
    for name in ("megatron_config", "alora_invocation_tokens"):  # the first names a module that peft imports
        if settings.get(name) is not None:
            raise DataError(f"{path}: {name} is set, which is not supported")
    try:
        return LoraConfig.from_pretrained(str(folder))
    except Exception as error:  # values of wrong types make peft fail in many ways
        raise DataError(f"{path}: not the settings of a LoRA adapter: {first_line(error)}") from error


def check_adapter(folder: str | Path) -> LoraConfig:
    """Return the settings of an adapter whose weights can be read without executing anything.

    Raises:
        DataError: if its settings or its weights cannot be read.
    """
    config, path = adapter_config(folder), Path(folder) / WEIGHTS
    if not path.is_file():
        pickled = sorted(found.name for found in Path(folder).glob("*.bin"))
        reason = f"; {pickled[0]} is not read, as it can hold code: save the adapter as safetensors" if pickled else ""
        raise DataError(f"{path}: there is no such file{reason}")
    weights_of(path)
    return config


def check_complete(model: PeftModel, name: str, folder: str | Path) -> None:
    """Refuse a loaded adapter whose weights are not those that its settings call for.

    Args:
        model: the model that it was loaded into.
        name: the adapter's name on the model.
        folder: where it came from.

    Raises:
        DataError: names the first weight that is missing, or that has no place in the model.
    """
    path = Path(folder) / WEIGHTS
    found = {key for key in weights_of(path) if ".lora_" in key}
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    wanted = {key for key in state if ".lora_" in key}
    for keys, verb in ((wanted - found, "lacks"), (found - wanted, "has, beside those of this model,")):
        if keys:
            raise DataError(f"{path}: {verb} {len(keys)} weights, {min(keys)} among them: not an adapter of this model")


def weights_of(path: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file.

    Raises:
        DataError: if it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as safetensors: {first_line(error)}") from error
