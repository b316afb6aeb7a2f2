"""Where a tokenizer comes from: a model's folder, the hub, or the compact vocabulary."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_arc.errors import DataError, first_line
from lightning_arc.folders import BUNDLED_MODEL
from lightning_arc.prompt.compact import compact_tokenizer

GGUF = ".gguf"
"""Suffix of files in llama.cpp's format, which hold a model and its tokenizer."""


def resolve_model_path(model_path: str) -> str:
    """Return the folder, GGUF file or hub name that ``model_path`` stands for.

    Raises:
        DataError: if it looks like a folder but holds no model, or like a GGUF file but is none.
    """
    if model_path == "bundled":
        return str(BUNDLED_MODEL)
    folder = Path(model_path).expanduser()
    if is_gguf(model_path):
        _check_gguf(folder)
        return str(folder)
    looks_local = model_path.startswith((".", "/", "~")) or model_path.count("/") > 1 or folder.exists()
    if looks_local and not (folder / "config.json").is_file():
        raise DataError(
            f"{model_path}: model_path must be a folder with config.json, or a hub name like Qwen/Qwen2.5-0.5B-Instruct"
        )
    return str(folder) if looks_local else model_path


def is_gguf(path: str) -> bool:
    """Whether a path names a GGUF file by its ending."""
    return path.lower().endswith(GGUF) and not Path(path).expanduser().is_dir()


def _check_gguf(file: Path) -> None:
    """Refuse a file that is not in the GGUF format, or that cannot be read because the package gguf is missing."""
    try:
        with file.open("rb") as opened:
            begins = opened.read(4)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror} (model_path)") from error
    if begins != b"GGUF":
        raise DataError(f"{file}: not a GGUF file, although its name ends in {GGUF} (model_path)")
    if find_spec("gguf") is None:
        raise DataError(f"{file}: a GGUF file needs the package gguf: pip install gguf (model_path)")


def pretrained_source(path: str) -> tuple[str, dict[str, Any]]:
    """Return the ``from_pretrained`` arguments for a resolved ``model_path``: a folder or hub name, and keywords."""
    if is_gguf(path):
        return str(Path(path).parent), {"gguf_file": Path(path).name}
    return path, {}


def load_tokenizer(model_path: str | None) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; the compact one where there is no ``model_path`` (a model from scratch).

    Raises:
        DataError: if the folder has none, or the hub does not give one.
    """
    if model_path is None:
        return compact_tokenizer()
    path = resolve_model_path(model_path)
    try:
        loader = PreTrainedTokenizerFast if _is_generic(Path(path)) else AutoTokenizer
        source, options = pretrained_source(path)
        tokenizer = loader.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # damaged files make the library fail in many ways
        raise DataError(f"{path}: no tokenizer could be loaded: {first_line(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise DataError(f"{path}: no tokenizer could be loaded: tokenizer.json is missing or has no vocabulary")
    return tokenizer


def decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int] | NDArray[np.integer]) -> str:
    """Return the text of one sequence of token ids."""
    text = tokenizer.decode(ids)
    assert isinstance(text, str)  # a list belongs to several sequences
    return text


def _is_generic(folder: Path) -> bool:
    """Whether a folder's tokenizer is its ``tokenizer.json`` and nothing else.

    ``AutoTokenizer`` goes by the model's architecture instead, and takes a Qwen2's tokenizer for Qwen's own.
    """
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return False
    return json.loads(config.read_text()).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
