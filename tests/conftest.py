"""What all tests share: where real data lies, and hypothesis settings."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# the examples are always the same where a change is judged, and new ones where a person works
settings.register_profile("lightning_arc", deadline=None, max_examples=40, derandomize="CI" in os.environ)
settings.load_profile("lightning_arc")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout, from which every command is run."""
    return ROOT


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs ``cli.py`` with some arguments in this process, and returns what it wrote."""
    from lightning_arc.command_line import ArcCLI, one_line_errors

    def run(*arguments: object, status: int = 0) -> str:
        capfd.readouterr()
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, arguments)])
        ended = 0
        try:
            with one_line_errors():
                ArcCLI()
        except SystemExit as error:
            ended = error.code
        text = "\n".join(capfd.readouterr())
        assert ended == status, text
        return text

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real candidates, RE-ARC pairs and Qwen2.5's tokenizer, which a clone of this repository does not have."""
    path = Path(os.environ.get("ARC_SHARED", ROOT.parent / "shared")).resolve()
    if not (path / "data").is_dir():
        pytest.skip(f"ARC_SHARED: {path / 'data'} not found; set it to a folder with the data that the README names")
    return path


@pytest.fixture(scope="session")
def qwen_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of Qwen2.5-0.5B's architecture with two layers, random weights and the real tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    folder = tmp_path_factory.mktemp("qwen")
    set_seed(0)
    config = AutoConfig.from_pretrained(
        shared / "qwen2.5-0.5b", num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4
    )
    config.layer_types = ["full_attention"] * 2
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shared / "qwen2.5-0.5b" / name, folder / name)
    return folder
