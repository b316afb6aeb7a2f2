"""How prompts are written, as a setting: named by a prediction, remembered by a checkpoint, and used end to end."""

import json
import sys

import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

from lightning_arc.cli.command_line import ArcCLI
from lightning_arc.data.module import ArcDataModule
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_settings import PromptSettings, remembered

PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
TASKS = {name: {"train": [PAIR, PAIR], "test": [PAIR]} for name in ("a", "b")}
CANDIDATES = {name: [[PAIR["output"], [[3, 4]]]] for name in TASKS}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ tone | default('') }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{{ tone | default('') }}\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(small_tokenizer, tmp_path_factory):
    """A base model of a few thousand weights without a chat template, whose tokenizer's pieces do not add up."""
    path, tokenizer = tmp_path_factory.mktemp("base"), small_tokenizer("smollm")
    tokenizer.save_pretrained(path)
    set_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(path)
    (path / "own.jinja").write_text(TEMPLATE)
    (path / "tasks.json").write_text(json.dumps(TASKS))
    (path / "candidates.json").write_text(json.dumps(CANDIDATES))
    return path


def module(folder, stage: str | None = "predict", **settings) -> ArcDataModule:
    paths = {"tasks": str(folder / "tasks.json"), "candidates": str(folder / "candidates.json")}
    data = ArcDataModule(model_path=str(folder), **paths, **settings)
    if stage:
        data.setup(stage)
    return data


def command(monkeypatch, *arguments) -> None:
    """Run a command in this process."""
    monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, arguments)])
    ArcCLI()


def test_a_prediction_is_named_by_its_template_and_the_templates_arguments(folder):
    own = {"chat_template": str(folder / "own.jinja")}
    names = [
        module(folder, **settings).prediction.signature
        for settings in (
            {},
            own,
            own | {"chat_template_kwargs": {"tone": "!"}},
            {"chat_template_kwargs": {"tone": "!"}},
        )
    ]
    assert names[0] == names[1] == names[3]  # the same prompts: ChatML in other words, and a name that it lacks
    assert names[2] != names[0]


def test_a_checkpoint_remembers_how_prompts_are_written_and_what_is_typed_wins(folder):
    typed = {"chat_template": str(folder / "own.jinja"), "chat_template_kwargs": {"tone": "!"}}
    state = module(folder, **typed).state_dict()
    assert state["chat_template"] == TEMPLATE and state["chat_template_kwargs"] == {"tone": "!"}

    follows = module(folder)
    follows.load_state_dict(state)
    assert follows.prompt_encoder.conversation == module(folder, **typed).prompt_encoder.conversation
    assert follows.state_dict() == state
    assert follows.prompt_encoder.tokenizer.chat_template == TEMPLATE  # it is exported with the model

    decides = module(folder, chat_template_kwargs={"tone": "?"}, grid_encoder="MinimalGridEncoder()")
    decides.load_state_dict(state)
    assert "assistant?\n" in decides.prompt_encoder.conversation[1]
    assert str(decides.prompt_encoder.grid_encoder) == "MinimalGridEncoder()"


def test_a_checkpoint_from_before_chat_templates_were_kept_changes_only_how_grids_are_written(folder):
    data = module(folder)
    before = data.prompt_encoder.conversation
    data.load_state_dict({"grid_encoder": "MinimalGridEncoder()"})
    assert (data.prompt_encoder.conversation, str(data.prompt_encoder.grid_encoder)) == (before, "MinimalGridEncoder()")


@pytest.mark.parametrize("state", [{"chat_template": 3}, {"chat_template_kwargs": "x"}, {"grid_encoder": None}])
def test_a_checkpoint_that_remembers_something_else_is_refused(state):
    with pytest.raises(DataError, match=f"^ckpt_path: the checkpoint's {next(iter(state))} is .*, expected a"):
        PromptSettings().or_remembered(state)


def test_settings_of_a_template_that_cannot_be_are_refused_before_anything_is_loaded(folder):
    with pytest.raises(DataError, match=r"none.jinja: No such file.*data.chat_template"):
        module(folder, None, chat_template=str(folder / "none.jinja"))
    with pytest.raises(DataError, match=r"data.chat_template_kwargs: 'tokenize' is set by this program"):
        module(folder, None, chat_template_kwargs={"tokenize": True})


def test_a_tokenizer_by_turns_is_warned_of_once_in_one_line(folder):
    with pytest.warns(UserWarning, match="whole turns") as seen:
        data = module(folder, trim_vocabulary=True)
    assert data.prompt_encoder.by_turns
    assert len([w for w in seen if "whole turns" in str(w.message)]) == 1


def test_a_trimmed_vocabulary_without_the_checkpoints_template_is_refused_with_the_remedy(folder):
    state = module(folder, chat_template=str(folder / "own.jinja"), chat_template_kwargs={"tone": "§"}).state_dict()
    with pytest.raises(DataError, match=r"^model.trim_vocabulary: the token .* give the data.chat_template"):
        module(folder, trim_vocabulary=True).load_state_dict(state)


@pytest.mark.slow
def test_a_model_by_turns_ranks_and_generates_with_the_template_of_its_training(folder, tmp_path, monkeypatch):
    common = (
        *("--trainer.accelerator", "cpu", "--data.max_seq_len", "1024", "--data.batch_size", "2"),
        *("--trainer.callbacks+=lightning.pytorch.callbacks.ModelSummary", "--trainer.logger", "false"),
    )
    model = ("--model.model_path", folder, "--model.lora", "{r: 2, alpha: 2}")
    command(
        monkeypatch,
        *("fit", *model, *common, "--trainer.max_steps", "2", "--trainer.default_root_dir", tmp_path / "fit"),
        *("--data.train_datasets", json.dumps([{"path": str(folder / "tasks.json")}])),
        *("--data.samples_per_epoch", "4", "--data.chat_template", folder / "own.jinja"),
        *("--data.chat_template_kwargs.tone", "!", "--data.learn_demonstrations", "true"),
    )
    (checkpoint,) = (tmp_path / "fit").rglob("*.ckpt")
    tasks = ("--data.tasks", folder / "tasks.json", "--data.n_views", "2", "--ckpt_path", checkpoint)
    command(
        monkeypatch,
        *("predict", "--config", "configs/rank.yaml", *model, *common, *tasks),
        *("--data.candidates", folder / "candidates.json", "--trainer.default_root_dir", tmp_path / "rank"),
    )
    lines = [json.loads(line) for line in (tmp_path / "rank" / "ranking.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(candidate["views"] == 2 for line in lines for candidate in line["candidates"])
    command(
        monkeypatch,
        *("predict", "--config", "configs/generate.yaml", *model, *common, *tasks),
        *("--trainer.default_root_dir", tmp_path / "generate", "--model.trim_vocabulary", "true"),
        *("--data.chat_template", folder / "own.jinja", "--data.chat_template_kwargs", "{tone: '!'}"),
    )
    written = json.loads((tmp_path / "generate" / "candidates.json").read_text())
    assert {*written} == {*TASKS} and any(written["a"][0])  # the grammar lets nothing but grids through
    command(monkeypatch, "export", *model, "--ckpt_path", checkpoint, "--folder", tmp_path / "export")
    assert AutoTokenizer.from_pretrained(tmp_path / "export").chat_template == TEMPLATE


def test_what_is_remembered_of_the_compact_vocabulary_is_how_grids_are_written():
    data = ArcDataModule()
    data.setup("export")
    assert remembered(data.prompt_encoder) == {"grid_encoder": "CompactGridEncoder()"}
    assert data.prompt_encoder.conversation == []
