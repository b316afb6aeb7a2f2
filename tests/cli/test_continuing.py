"""Training that is interrupted and continues, and the recipes of docs/, executed as they are written there."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from lightning_arc.inference import predictor
from lightning_arc.model.optimizers import make_optimizer, make_schedule, use_settings

from . import helpers
from .helpers import TASKS

pytestmark = pytest.mark.slow

SMALL = (*helpers.SMALL, "--trainer.log_every_n_steps=1")
SCRATCH = "--model.scratch={hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}"
EVERY_STEP = (
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
    "init_args: {every_n_train_steps: 1, save_last: true}}, {class_path: lightning_arc.callbacks.export.ExportModel}]"
)


def documentation(root: Path) -> str:
    """All pages of docs/."""
    return "\n".join(page.read_text() for page in sorted((root / "docs").glob("*.md")))


def recipe(root: Path, *words: str) -> list[str]:
    """The command of docs/ with some words, as a shell reads it, without the interpreter and ``cli.py``."""
    text = re.sub(r"^~~~\n.*?^~~~\n", "", documentation(root), flags=re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.replace("\\\n", " ").splitlines()]
    (line,) = [line for line in lines if all(word in line for word in words)]
    program, *arguments = shlex.split(line, comments=True)
    if program == "lightning-arc":
        return [word.strip("[]") for word in arguments]
    assert program in ("python", ".venv/bin/python") and arguments[0] == "cli.py"
    return arguments[1:]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.ckpt"))


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.fixture
def tasks(tmp_path) -> tuple[Path, Path]:
    (tmp_path / "tasks.json").write_text(json.dumps(TASKS))
    (tmp_path / "candidates.json").write_text(json.dumps({"a": [[[[1, 0], [0, 1]], [[3]]]]}))
    return tmp_path / "tasks.json", tmp_path / "candidates.json"


def test_the_documented_continuing_recipe_goes_on_in_the_runs_folder_and_keeps_one_set_of_checkpoints(
    cli, repo_root, tmp_path
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = recipe(repo_root, "cli.py fit", "--ckpt_path last")
    assert command[-2:] == ["--ckpt_path", "last"]
    small = (*SMALL, SCRATCH, EVERY_STEP, f"--trainer.default_root_dir={tmp_path}")
    output = cli(*command, *small, "--trainer.max_steps=2")  # there is nothing yet to continue from
    folder = tmp_path / "lightning_logs" / "version_0"
    assert names(tmp_path) == ["epoch=0-step=2.ckpt", "last.ckpt"]
    exported = (tmp_path / "model" / "model.safetensors").read_bytes()

    # killed when the third step's checkpoint was written and the second one's not yet removed; `last.ckpt` is torn
    shutil.copy(folder / "checkpoints" / "epoch=0-step=2.ckpt", folder / "checkpoints" / "epoch=0-step=1.ckpt")
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    output = cli(*command, *small, "--trainer.max_steps=4")
    assert f"warning: {last}: not a checkpoint, or only a part of one; passed over (ckpt_path last)" in output
    for steps in (5, 6):
        output = cli(*command, *small, f"--trainer.max_steps={steps}")
        assert "passed over" not in output and "not empty" not in output
    assert names(tmp_path) == ["epoch=0-step=6.ckpt", "last.ckpt"] and load(last)["global_step"] == 6
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lightning_logs", "model"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != exported
    board = EventAccumulator(str(folder))
    board.Reload()
    # Files of one process and second are read in the order of their names, in which the tenth is before the ninth.
    steps = [event.step for event in sorted(board.Scalars("train/loss"), key=lambda event: event.wall_time)]
    assert steps == sorted({*steps}) and len(steps) == 6

    whole = (*SMALL, SCRATCH, EVERY_STEP, f"--trainer.default_root_dir={tmp_path / 'whole'}", "--trainer.max_steps=6")
    cli(*command[:-2], *whole)
    ends = [load(path)["state_dict"] for path in (last, *(tmp_path / "whole").rglob("last.ckpt"))]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_new_run_prints_how_to_continue_the_earlier_one_and_leaves_its_model(cli, tmp_path):
    command = ("fit", "--config", "configs/fit.yaml", *SMALL, SCRATCH, EVERY_STEP)
    command = (*command, f"--trainer.default_root_dir={tmp_path}")
    assert "earlier run" not in cli(*command, "--trainer.max_steps=2")
    earlier = (tmp_path / "model" / "model.safetensors").read_bytes()
    output = cli(*command, "--trainer.max_steps=1")
    last = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    assert f"warning: {last}: of an earlier run; this run is new, --ckpt_path last would continue that one" in output
    assert (tmp_path / "model-1" / "model.safetensors").read_bytes() == earlier
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != earlier
    assert load(last)["global_step"] == 2

    # from an earlier step than the last, a version of its own begins
    cli(*command, "--trainer.max_steps=3", "--ckpt_path", last.with_name("epoch=0-step=2.ckpt"))
    cli(*command, "--trainer.max_steps=4", "--ckpt_path", last)
    assert load(last)["global_step"] == 4


def test_training_continues_with_what_is_typed_of_the_optimizer_and_its_schedule(cli, tmp_path):
    command = ("fit", "--config", "configs/fit.yaml", *SMALL, SCRATCH, f"--trainer.default_root_dir={tmp_path}")
    cli(*command, "--trainer.max_steps=2", "--model.warmup_steps=4")
    typed = ("--model.learning_rate=1e-5", "--model.schedule=constant", "--model.weight_decay=0.5")
    typed = (*typed, "--model.betas=[0.5, 0.6]", "--model.warmup_steps=0")
    cli(*command, "--trainer.max_steps=4", "--ckpt_path=last", *typed)
    (path,) = tmp_path.rglob("last.ckpt")
    found = load(path)
    groups = found["optimizer_states"][0]["param_groups"]
    assert [(g["lr"], g["initial_lr"], g["weight_decay"], g["betas"]) for g in groups] == [
        (1e-5, 1e-5, 0.5, (0.5, 0.6)),
        (1e-5, 1e-5, 0.0, (0.5, 0.6)),
    ]
    assert found["lr_schedulers"][0]["base_lrs"] == [1e-5, 1e-5] and found["lr_schedulers"][0]["last_epoch"] == 4
    settings = found["hyper_parameters"]
    assert (settings["learning_rate"], settings["schedule"], settings["warmup_steps"]) == (1e-5, "constant", 0)
    assert "decoding" not in settings and settings["scratch"]["layers"] == 1


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_a_restored_optimizer_with_the_same_settings_is_bit_equal(name):
    def make(rate: float):
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(3, 3)), torch.nn.Parameter(torch.randn(3))]
        optimizer = make_optimizer("adamw", weights, rate, 0.1, (0.9, 0.95))
        return weights, optimizer, make_schedule(name, optimizer, 3, 20)

    def train(weights, optimizer, schedule, steps: int) -> list[float]:
        rates = []
        for _ in range(steps):
            sum((w**2).sum() for w in weights).backward()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        return rates

    whole, first, second = make(0.1), make(0.1), make(0.1)
    rates = train(*whole, 12)
    train(*first, 5)
    with torch.no_grad():
        for mine, saved in zip(second[0], first[0], strict=True):
            mine.copy_(saved)
    other = make(0.3)
    for _, optimizer, schedule in (second, other):
        optimizer.load_state_dict(first[1].state_dict())
        schedule.load_state_dict(first[2].state_dict())
    use_settings(second[2], 0.1, 0.1, (0.9, 0.95))
    assert train(*second, 7) == rates[5:]
    assert all(torch.equal(a, b) for a, b in zip(second[0], whole[0], strict=True))
    use_settings(other[2], 0.3, 0.1, (0.9, 0.95))
    assert train(*other, 7) == pytest.approx([3 * rate for rate in rates[5:]])


def test_the_documented_search_of_likely_answers_runs_with_a_checkpoint(cli, repo_root, tmp_path, tasks, monkeypatch):
    (option,) = set(re.findall(r"--model\.decoding\.min_probability \S+(?=`)", documentation(repo_root)))
    cli("fit", "--config", "configs/fit.yaml", *SMALL, SCRATCH, f"--trainer.default_root_dir={tmp_path / 'fit'}",
        "--trainer.max_steps=1", "--model.decoding.min_probability=0.5")  # fmt: skip
    (checkpoint,) = (tmp_path / "fit").rglob("last.ckpt")
    decodings, generate_answers = [], predictor.generate_answers

    def spy(*arguments):
        decodings.append(arguments[3])
        return generate_answers(*arguments)

    monkeypatch.setattr(predictor, "generate_answers", spy)
    command = recipe(repo_root, "configs/generate.yaml", "[--ckpt_path CKPT]")
    given = {"TASKS": tasks[0], "OUT": tmp_path / "out", "[--ckpt_path": "--ckpt_path", "CKPT]": checkpoint}
    command = [str(given.get(word, word)) for word in command]
    cli(*command, *option.split(), "--data.n_views=1", "--trainer.accelerator=cpu")
    assert decodings and {(each.n_samples, each.min_probability) for each in decodings} == {(8, 0.1)}
    assert (tmp_path / "out" / "candidates.json").is_file()


def test_the_documented_kaggle_recipe_ranks_with_a_base_that_lies_elsewhere(cli, repo_root, tmp_path, tasks):
    trained_on, folder = tmp_path / "there", tmp_path / "here"
    shutil.copytree(repo_root / "lightning_arc" / "bundled" / "model", trained_on)
    command = recipe(repo_root, "configs/fit_qwen_lora.yaml", "--model.model_path PATH_OR_HUB_NAME")
    command = [{"PATH_OR_HUB_NAME": str(trained_on)}.get(word, word) for word in command]
    small = ("--model.lora.r=2", "--data.grid_encoder=null", "--trainer.max_steps=1", "--trainer.precision=32-true")
    cli(*command, *SMALL, *small, f"--trainer.default_root_dir={tmp_path / 'fit'}")
    (checkpoint,) = (tmp_path / "fit").rglob("last.ckpt")
    shutil.move(trained_on, folder)
    shutil.copy(checkpoint, tmp_path / "last.ckpt")

    command = recipe(repo_root, "--model.model_path QWEN_FOLDER", "--ckpt_path last.ckpt", "--config rank.yaml")
    given = {"QWEN_FOLDER": folder, "last.ckpt": tmp_path / "last.ckpt", "OUT": tmp_path / "out"}
    given |= {"CHALLENGES.json": tasks[0], "GENERATED/candidates.json": tasks[1]}
    command = [str(given.get(word, word)) for word in command]
    command += ["--model.stopping.min_views=1", "--model.stopping.max_views=1", "--model.test_time.steps=1"]
    cli(*command, "--trainer.accelerator=cpu")
    assert json.loads((tmp_path / "out" / "submission.json").read_text())["a"][0]["attempt_2"]
    (line,) = map(json.loads, (tmp_path / "out" / "ranking.jsonl").read_text().splitlines())
    assert [candidate["views"] for candidate in line["candidates"]] == [1, 1]

    export = recipe(repo_root, "--ckpt_path last.ckpt --folder model", "--merge true")
    export = [
        str({"last.ckpt": tmp_path / "last.ckpt", "model": tmp_path / "merged"}.get(word, word)) for word in export
    ]
    cli(*export, "--model.model_path", folder)
    assert (tmp_path / "merged" / "model.safetensors").is_file()

    output = cli(*[word for word in command if word not in ("--model.model_path", str(folder))], status=2)
    assert output.count("error: ") == 1 and f"error: {trained_on}: " in output and "Traceback" not in output
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[len(weights) // 2 :] = bytes(len(weights) - len(weights) // 2)  # another base of the same size
    (folder / "model.safetensors").write_bytes(weights)
    command = [word.replace(str(tmp_path / "out"), str(tmp_path / "release")) for word in command]
    output = cli(*command, "--trainer.accelerator=cpu")
    assert (
        f"warning: the checkpoint was trained on {trained_on}" in output
        and "the same model with other weights" in output
    )


def test_a_flipped_bit_ends_every_command_in_one_line(cli, tmp_path, tasks):
    cli("fit", "--config", "configs/fit.yaml", *SMALL, SCRATCH, f"--trainer.default_root_dir={tmp_path / 'fit'}",
        "--trainer.max_steps=1")  # fmt: skip
    (path,) = (tmp_path / "fit").rglob("last.ckpt")
    content = bytearray(path.read_bytes())
    embedding = load(path)["state_dict"]["model.model.embed_tokens.weight"].numpy().tobytes()
    content[content.find(embedding) + len(embedding) // 2] ^= 1
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(content)
    rank = ("predict", "--config", "configs/rank.yaml", "--data.tasks", tasks[0], "--data.candidates", tasks[1])
    rank = (*rank, "--data.n_views=1", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / 'out'}")
    for command in (
        ("fit", "--config", "configs/fit.yaml", "--ckpt_path", bad),
        ("validate", "--config", "configs/validate.yaml", "--ckpt_path", bad),
        (*rank, "--ckpt_path", bad),
        ("export", "--ckpt_path", bad, f"--folder={tmp_path / 'out'}"),
        (*rank, "--ckpt_path", path, f"--model.ensemble=[{bad}]"),
    ):
        output = cli(*command, status=2)
        (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
        option = "model.ensemble" if command[0] == "predict" and bad not in command else "ckpt_path"
        assert line.startswith(f"error: {bad}: damaged checkpoint, Bad CRC-32") and line.endswith(f"({option})")
        assert "Traceback" not in output and not (tmp_path / "out" / "submission.json").exists()
