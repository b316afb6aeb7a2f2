"""Ranking and generating as they end: with numbers that are not finite, or interrupted."""

import json
import math
import os
import signal

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

from lightning_arc.cli.trainer import SafeTrainer
from lightning_arc.data.module import ArcDataModule
from lightning_arc.errors import DataError, Stopped
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.decoding import Decoding
from lightning_arc.model.ttt import TestTimeTrainer, TestTimeTrainingConfig
from lightning_arc.ranking.rankers import ComparativeRanker

PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
OTHER = {"input": [[0, 2], [2, 0]], "output": [[2, 0], [0, 2]]}


@pytest.fixture(autouse=True)
def signals():
    """Let handlers be as they were before behind each test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def predict(tmp_path):
    """A function that ranks or generates into a folder of this name."""
    tasks, candidates = tmp_path / "tasks.json", tmp_path / "candidates.json"
    tasks.write_text(json.dumps({f"t{i}": {"train": [PAIR, OTHER], "test": [PAIR]} for i in range(3)}))
    candidates.write_text(json.dumps({f"t{i}": [[[[1, 0], [0, 1]], [[3]]]] for i in range(3)}))

    def run(kind, name, *callbacks, change=None, max_seq_len=2048, **settings):
        settings = {"decoding": Decoding(n_samples=2)} | settings
        module = ArcModel("bundled", **settings)
        module.build()
        if change is not None:
            with torch.no_grad():
                change(module.model)
        options = {"candidates": str(candidates)} if kind == "rank" else {"generate": True}
        data = ArcDataModule(
            model_path="bundled",
            tasks=str(tasks),
            n_views=2,
            batch_size=1,
            max_seq_len=max_seq_len,
            test_time_scope=settings["test_time"].scope if "test_time" in settings else None,
            **options,
        )
        trainer = SafeTrainer(
            default_root_dir=str(tmp_path / name),
            callbacks=list(callbacks),
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.predict(module, data, return_predictions=False)
        return tmp_path / name

    return run


def test_queries_that_are_too_long_to_be_asked_are_counted(predict):
    with pytest.warns(UserWarning, match="3 of 3 queries are too long for data.max_seq_len 12"):
        folder = predict("generate", "long", max_seq_len=12)
    assert json.loads((folder / "candidates.json").read_text()) == {f"t{i}": [[]] for i in range(3)}


def spoil(model):
    next(model.parameters())[0] = math.nan


def overflow(model):
    """Let the model's answers be infinite though its weights are finite."""
    model.model.norm.weight.fill_(3e38)


@pytest.mark.parametrize("kind", ["rank", "generate"])
def test_weights_that_are_not_finite_are_refused_before_any_request(predict, tmp_path, kind):
    with pytest.raises(DataError, match=r"^bundled: 1 of its weights are not finite numbers, \S+ among them"):
        predict(kind, "out", change=spoil)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "ranker"), [("rank", None), ("rank", ComparativeRanker()), ("generate", None)])
def test_answers_that_are_not_finite_end_in_one_line_and_what_was_answered_before_is_kept(
    predict, tmp_path, kind, ranker
):
    class Later(L.Callback):
        def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                overflow(pl_module.causal_lm)

    with pytest.raises(DataError, match=r"^task t\d, test\[0\], view \d: the model's answer is not a finite number"):
        predict(kind, "out", Later(), ranker=ranker)
    (journal,) = (tmp_path / "out").iterdir()
    assert journal.suffix == ".jsonl" and journal.read_bytes().count(b"\n") == 1 + 3


def test_an_ensemble_refuses_a_member_whose_weights_are_not_finite(predict, tmp_path):
    module = ArcModel("bundled")
    module.build()
    with torch.no_grad():
        spoil(module.model)
    path = tmp_path / "member.ckpt"
    torch.save({"state_dict": module.state_dict()}, path)
    with pytest.raises(DataError, match=r"member\.ckpt: 1 of its weights are not finite"):
        predict("rank", "out", ensemble=[str(path)])


@pytest.mark.parametrize("kind", ["rank", "generate"])
def test_a_task_whose_test_time_training_diverges_is_answered_by_the_model_without_it(predict, tmp_path, capsys, kind):
    diverges = TestTimeTrainingConfig(steps=3, trees=1, r=2, learning_rate=1e30)
    predict(kind, "diverged", test_time=diverges)
    output = " ".join(capsys.readouterr().out.split())
    sentence = "Test-time training diverged on 3 tasks (t0, t1, t2), for which the model was asked as it is"
    assert sentence in output
    predict(kind, "plain")
    assert "diverged" not in capsys.readouterr().out
    assert not list((tmp_path / "diverged").rglob("*.safetensors"))
    name = "ranking.jsonl" if kind == "rank" else "candidates.json"
    assert (tmp_path / "diverged" / name).read_text() == (tmp_path / "plain" / name).read_text()
    if kind == "rank":
        folder = predict("rank", "diverged", test_time=diverges)  # from the journal alone
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["test_time"] == {"diverged": 3, "diverged_tasks": ["t0", "t1", "t2"]}
        assert sentence in (folder / "report.html").read_text()
        assert json.loads((tmp_path / "plain" / "metrics.json").read_text())["test_time"]["diverged"] == 0


@pytest.mark.parametrize("kind", ["rank", "generate"])
def test_a_whole_set_is_trained_on_once_before_any_request_and_without_test_outputs(predict, tmp_path, kind):
    learns = TestTimeTrainingConfig(scope="set", steps=2, trees=2, r=2, learning_rate=1e-2)
    folder, tasks = predict(kind, "known", test_time=learns), json.loads((tmp_path / "tasks.json").read_text())
    (adapter,) = (folder / "adapters").iterdir()
    assert adapter.name == "@set.safetensors"
    if kind == "rank":
        first, *others = [json.loads(line) for line in (folder / "evidence-0.jsonl").read_text().splitlines()[1:]]
        assert first["test_time_tokens"] > 0 and not any(record["test_time_tokens"] for record in others)
        assert first["seconds"] > max(record["seconds"] for record in others)
    for task in tasks.values():
        task["test"][0]["output"] = [[5, 5, 5]]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    other = load_file(predict(kind, "other", test_time=learns) / "adapters" / adapter.name)
    assert all(torch.equal(p, other[name]) for name, p in load_file(adapter).items())
    for task in tasks.values():
        task["train"][0]["output"] = [[5, 5, 5]]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    changed = load_file(predict(kind, "changed", test_time=learns) / "adapters" / adapter.name)
    assert not all(torch.equal(p, changed[name]) for name, p in load_file(adapter).items())


@pytest.mark.parametrize(
    ("kind", "number", "status"), [("rank", signal.SIGINT, 130), ("rank", signal.SIGTERM, 143), ("generate", 15, 143)]
)
def test_a_signal_ends_a_prediction_at_once_and_its_files_hold_the_answers_so_far(
    predict, tmp_path, kind, number, status
):
    class Killer(L.Callback):
        def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                os.kill(os.getpid(), number)
                pytest.fail("the batch went on")

    with pytest.raises(Stopped) as stopped:
        predict(kind, "cut", Killer())
    assert stopped.value.code == status
    assert stopped.value.message.endswith(f"go on with the same command, which keeps the answers in {tmp_path / 'cut'}")
    files = {path.name: path for path in (tmp_path / "cut").iterdir()}
    if kind == "rank":
        assert {*json.loads(files["submission.json"].read_text())} == {"t0", "t1", "t2"}
        assert {"metrics.json", "report.html"} < {*files}
        lines = [json.loads(line) for line in files["ranking.jsonl"].read_text().splitlines()]
        assert sum(line["candidates"][0]["views"] for line in lines) == 3
    else:
        assert {*json.loads(files["candidates.json"].read_text())} <= {"t0", "t1", "t2"}
        assert "candidates.parquet" in files
    predict(kind, "cut")
    predict(kind, "whole")
    for name in ("ranking.jsonl", "submission.json") if kind == "rank" else ("candidates.json",):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_signal_in_the_training_on_a_whole_set_leaves_the_files_of_what_is_known(predict, tmp_path, monkeypatch):
    def killed(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the training went on")

    monkeypatch.setattr(TestTimeTrainer, "adapt", killed)
    learns = TestTimeTrainingConfig(scope="set", steps=2, trees=2, r=2, learning_rate=1e-2)
    with pytest.raises(Stopped):
        predict("rank", "cut", test_time=learns)
    assert {"submission.json", "metrics.json", "report.html"} < {path.name for path in (tmp_path / "cut").iterdir()}
