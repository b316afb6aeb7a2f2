"""What all tests share: where real data lies, and hypothesis settings."""

import logging
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # tests compute little, and several run side by side; benchmarks run alone
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# where a change is judged the examples are always the same, and fewer; where a person works they are new ones
IN_CI = "CI" in os.environ
settings.register_profile("lightning_arc", deadline=None, max_examples=20 if IN_CI else 40, derandomize=IN_CI)
settings.load_profile("lightning_arc")

ROOT = Path(__file__).parent.parent

LLAMA_WORDS = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TOKENIZER_TEXT = [
    "user assistant system Write the output grid of the test. Is this output right? Answer yes or no. yes no",
    *(f"# Example {i}\n\nInput:\n```grid shape: {i}x{i}\n{i} 012\n```\n\nOutput:\n" for i in range(1, 31)),
    *(f"{i}\n\n{i}" for i in range(10)),
    *["０ １ ２ ３ ４ ５ ６ ７ ８ ９"] * 10,
    " ".join(map(str, range(1000))),
] * 3


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout, from which every command is run."""
    return ROOT


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs ``cli.py`` with some arguments in this process, and returns what it wrote."""
    from lightning_arc.cli import command_line, main

    # what a machine does fastest is timed anew by every command, and results are compared to the last digit
    monkeypatch.setattr(command_line, "fastest_precision", lambda: "32-true")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, status: int = 0) -> str:
        capfd.readouterr()
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, arguments)])
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, *sys.argv])
        monkeypatch.setattr(logging, "raiseExceptions", False)  # handlers of earlier tests hold streams that are closed
        ended = 0
        try:
            main()
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
        pytest.skip(f"ARC_SHARED: {path / 'data'} not found; its folder has in data/ the files of docs/data.md")
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


@pytest.fixture(scope="session")
def small_tokenizer() -> Callable[[str], "PreTrainedTokenizerBase"]:
    """A function that gives a small tokenizer with ChatML's tokens which cuts words as a published one does."""
    return cache(_small_tokenizer)


def _small_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    digits = pre_tokenizers.Digits(individual_digits=True)
    gpt2 = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer = Tokenizer(models.BPE())
    # SmolLM2: GPT-2's words, in which white space is cut by what follows it, and digits apart
    tokenizer.pre_tokenizer = gpt2
    if name == "llama":  # up to three digits a token
        split = pre_tokenizers.Split(Regex(LLAMA_WORDS), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    elif name == "lower":
        tokenizer.normalizer = normalizers.Lowercase()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TOKENIZER_TEXT, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    greedy = name == "greedy"  # special tokens that take the white space beside them
    start = AddedToken("<|im_start|>", normalized=False, rstrip=greedy)
    tokenizer.add_special_tokens([start, AddedToken("<|im_end|>", normalized=False, lstrip=greedy)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, name_or_path=name, clean_up_tokenization_spaces=False)
