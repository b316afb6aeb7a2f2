"""What TensorBoard shows of a training: its event files, and its pages in a browser."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_arc.cli import main

VERIFY, WRITE = "verify-output-from-examples", "output-from-examples"
TINY = (
    "--model.scratch={hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}",
    *("--data.max_seq_len=512", "--data.batch_size=2", "--pictures.n=1", "--trainer.accelerator=cpu"),
    *("--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.limit_val_batches=2"),
    *("--trainer.log_every_n_steps=2", "--trainer.num_sanity_val_steps=1", "--data.held_out_fraction=0"),
)
PAIRS = [{"input": [[0, i], [1, 0]], "output": [[i, 0], [0, 1]]} for i in range(1, 4)]
TASKS = {f"t{i}": {"train": PAIRS[:2], "test": PAIRS[2:]} for i in range(4)}


@pytest.fixture(scope="module")
def run(repo_root, tmp_path_factory) -> tuple[Path, str]:
    """The folder of two very small trainings, and what the first one wrote to the terminal."""
    folder = tmp_path_factory.mktemp("board")
    (folder / "tasks.json").write_text(json.dumps(TASKS))
    wrong = [{"attempt_1": [[1, 1]], "attempt_2": PAIRS[2]["output"]}]
    (folder / "candidates.json").write_text(json.dumps(dict.fromkeys(TASKS, wrong)))
    candidates = {"path": str(folder / "tasks.json"), "candidates": [str(folder / "candidates.json")]}
    (folder / "data.yaml").write_text(yaml.safe_dump({"data": {"val_dataset": candidates}}))
    words = ["fit", "--config", "configs/fit.yaml", "--config", str(folder / "data.yaml"), *TINY]
    words += [f"--trainer.default_root_dir={folder}"]
    first = [sys.executable, "cli.py", *words, "--model.learning_rate=1e-3"]
    done = subprocess.run(first, cwd=repo_root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert not done.returncode, done.stdout
    with pytest.MonkeyPatch.context() as patch:  # the second one spares a start
        patch.chdir(repo_root)
        patch.setattr(sys, "argv", ["cli.py", *words, "--model.learning_rate=1e-2"])
        main()
    return folder, done.stdout


@pytest.fixture(scope="module")
def events(run) -> EventAccumulator:
    (path,) = (run[0] / "lightning_logs" / "version_0").glob("events*")
    log = EventAccumulator(str(path))
    log.Reload()
    return log


def test_everything_is_on_the_axis_of_global_steps(events):
    tags = events.Tags()["scalars"]
    wanted = {"train/loss", "train/gradient_norm", "usage/tokens_per_second", "usage/memory_gib"}
    wanted |= {f"{part}/{VERIFY}/{name}" for part in ("train", "val") for name in ("loss", "accuracy")}
    wanted |= {f"val/ranking/{name}" for name in ("vote_top1", "verifier_top2", "verifier_top2_minus_vote")}
    assert wanted <= set(tags)
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in tags if not tag.startswith("train/learning")}
    sometimes = {tag for tag in steps if tag.startswith("workload/")}
    assert {tag: found for tag, found in steps.items() if found != [2, 4] and tag not in sometimes} == {}
    assert {tag.split("/")[0] for tag in tags} == {"train", "usage", "val", "workload"}


def test_a_validation_shows_log_odds_precision_and_reliability_and_a_training_its_first_prompt(events):
    tags = events.Tags()
    assert {f"val/{VERIFY}/log_odds_of_{name}_candidates" for name in ("right", "wrong")} == set(tags["histograms"])
    assert f"val/{VERIFY}/precision_recall" in tags["tensors"]
    assert f"val/{VERIFY}/reliability" in tags["images"]
    assert [event.step for event in events.Images(f"val/{VERIFY}/reliability")] == [2, 4]
    (text,) = events.Tensors("first prompt/text_summary")
    assert len(text.tensor_proto.string_val[0]) > 50


def test_the_terminal_shows_progress_what_was_written_and_what_to_type(run):
    folder, output = run
    assert "v_num" not in output and "Epoch" not in output
    lines = output.splitlines()
    assert "Training: begins at step 0 of 4" in lines
    assert any(line.startswith("Validation: at step 4, verdict loss ") and "by votes" in line for line in lines)
    version = folder / "lightning_logs" / "version_0"
    checkpoint = version / "checkpoints" / "last.ckpt"
    assert f"checkpoint: {checkpoint}" in lines and f"model:      {folder / 'model'}" in lines
    assert f"logs:       {version}" in lines
    assert lines[-1].startswith(f"next:       {sys.executable} cli.py predict --config configs/rank.yaml --ckpt_path ")


@pytest.fixture(scope="module")
def board(run) -> Iterator[Callable[..., dict]]:
    """A function that asks a TensorBoard of both trainings, on loopback."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run[0]), "--port", "0", "--host", "127.0.0.1"]
    log = run[0] / "tensorboard.txt"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        for _ in range(240):
            if "http://" in log.read_text():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        address = next(word for word in log.read_text().split() if word.startswith("http://")).rstrip("/")

        def send(path: str, body: dict | None = None) -> dict:
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(f"{address}{path}", data, {"Content-Type": "application/json"})
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return json.load(answer)

        send.address = address
        yield send
    finally:
        process.terminate()
        process.wait(30)


def test_trainings_compare_by_their_settings_and_last_figures(board):
    for _ in range(60):
        experiment = board("/data/plugin/hparams/experiment", {"experimentName": ""})
        if experiment.get("hparamInfos"):
            break
        time.sleep(0.5)
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"model.learning_rate", "model.scratch.hidden_size", "data.max_seq_len", "trainer.max_steps"} <= names
    tags = [info["name"] for info in experiment["metricInfos"]]
    assert {"tag": f"val/{VERIFY}/auroc", "group": ""} in tags and all("hp_metric" not in str(tag) for tag in tags)
    parameters: dict = {"startIndex": 0, "sliceSize": 10}
    parameters["allowedStatuses"] = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    columns = [{"metric": tag} for tag in tags] + [{"hparam": "model.learning_rate"}]
    parameters["colParams"] = [column | {"includeInResult": True} for column in columns]
    groups = board("/data/plugin/hparams/session_groups", {"experimentName": "", **parameters})["sessionGroups"]
    assert {group["hparams"]["model.learning_rate"] for group in groups} == {1e-3, 1e-2}
    for group in groups:
        values = {value["name"]["tag"]: value for value in group["metricValues"]}
        assert values["train/loss"]["trainingStep"] == 4 and values["train/loss"]["value"] > 0


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium here: apt-get install chromium chromium-driver"
)
def test_a_browser_shows_losses_first_and_the_table_of_settings(board, browser):
    from selenium.webdriver.common.by import By

    def shown(page: str, *words: str) -> str:
        browser.get(f"{board.address}/{page}")
        for _ in range(120):
            text = browser.find_element(By.TAG_NAME, "body").text
            if all(word in text for word in words):
                return text
            time.sleep(0.5)
        raise AssertionError(f"{page}: {words} not among {text[:2000]}")

    text = shown("#timeseries", "train", "workload")
    assert text.index("train") < text.index("usage") < text.index("workload")
    shown("#hparams", "learning_rate")
