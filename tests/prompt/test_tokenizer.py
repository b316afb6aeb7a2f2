"""Where tokenizers come from, and the error where there is none."""

import pytest

from lightning_arc.errors import DataError
from lightning_arc.folders import BUNDLED_MODEL
from lightning_arc.prompt.compact import compact_tokenizer, is_compact
from lightning_arc.prompt.tokenizer import load_tokenizer, resolve_model_path


def test_a_model_from_scratch_has_the_compact_vocabulary():
    assert is_compact(load_tokenizer(None))


def test_a_tokenizer_is_loaded_from_a_models_folder(tmp_path):
    compact_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert is_compact(load_tokenizer(str(tmp_path)))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path}: model_path must be a folder with config.json"):
        load_tokenizer(str(tmp_path))
    for path in ("./nowhere", "/nowhere/model", "a/b/c", "~/nowhere"):
        with pytest.raises(DataError, match="model_path must be a folder"):
            load_tokenizer(path)


def test_a_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(DataError, match="no tokenizer could be loaded") as error:
        load_tokenizer(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_with_a_broken_tokenizer_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="no tokenizer could be loaded") as error:
        load_tokenizer(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1


def test_hub_names_and_the_bundled_model_are_resolved_without_looking_at_the_hub():
    assert resolve_model_path("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"
    assert resolve_model_path("bundled") == str(BUNDLED_MODEL)
