"""Export: folders that transformers and peft load."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_arc.arc.io.files import whole_folder
from lightning_arc.errors import DataError, first_line
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.base_name import write_base
from lightning_arc.model.checkpoint import read_checkpoint
from lightning_arc.model.load import load_base, moved
from lightning_arc.model.vocabulary import untrim


def load_checkpoint(module: ArcModel, path: str) -> dict[str, Any]:
    """Load a checkpoint's weights into a module whose model has been built; return the data module's saved state.

    Raises:
        DataError: if it is no checkpoint, or belongs to another base.
    """
    checkpoint = read_checkpoint(path)
    try:
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    except DataError:  # says it all
        raise
    except (RuntimeError, KeyError) as error:
        raise DataError(f"{path}: not a checkpoint of this model: {first_line(error)} (ckpt_path)") from error
    return checkpoint.get("ArcDataModule", {})


def export(
    module: ArcModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    merge: bool,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model as other tools read it, with its tokenizer.

    Args:
        module: the trained module.
        tokenizer: its model's tokenizer, with the whole vocabulary.
        folder: where it goes. Without ``merge`` it is a peft adapter where one was trained, else the whole model.
        merge: whether an adapter is merged into its base's weights, and the whole model written.
        dtype: type of the weights in the file.

    Raises:
        DataError: if the folder cannot be written, or `holds_other` weights; what was there before is then as it was.
    """
    if found := holds_other(module, folder, merge):
        raise DataError(f"{folder}: holds {found}, which would be loaded together with what is exported (folder)")
    try:
        with whole_folder(folder) as temporary:
            _write(module, tokenizer, temporary, merge, dtype)
    except SafetensorError as error:
        raise DataError(f"{folder}: cannot be written: {first_line(error)}") from error


def holds_other(module: ArcModel, folder: str | Path, merge: bool) -> str | None:
    """Return the name of a whole model's file in a folder that an adapter would be exported to, or the reverse.

    Args:
        module: the trained module.
        folder: the folder, which need not exist.
        merge: as in `export`.
    """
    is_adapter = isinstance(module.model, PeftModel) and not merge
    found = sorted(Path(folder).glob("model*.safetensors" if is_adapter else "adapter_*"))
    return found[0].name if found else None


def _write(module: ArcModel, tokenizer: PreTrainedTokenizerBase, folder: Path, merge: bool, dtype: torch.dtype) -> None:
    model = module.model
    if isinstance(model, PeftModel) and not merge:
        assert module.base is not None  # as an adapter is on one
        weights = {name: p.to(dtype) if ".lora_" in name else p for name, p in model.state_dict().items()}
        # peft would write the embedding beside the adapter if its size is not that of the base
        model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
        write_base(folder, module.base)
    elif isinstance(model, PeftModel):
        with tempfile.TemporaryDirectory() as adapter:
            model.save_pretrained(adapter, save_embedding_layers=False)
            merged = PeftModel.from_pretrained(_as_loaded(module), adapter).merge_and_unload()
            merged.to(dtype).save_pretrained(folder)
    elif module.kept is not None:
        whole = _as_loaded(module)
        untrim(model, whole, module.kept)
        moved(whole, dtype).save_pretrained(folder)
    else:
        whole = model if model.dtype == dtype else moved(copy.deepcopy(model), dtype)
        whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _as_loaded(module: ArcModel) -> PreTrainedModel:
    """Return the model that was adapted or trimmed as it was before."""
    assert module.model_path is not None  # a model from scratch is neither
    return load_base(module.model_path, torch.float32)
