import numpy as np
import pytest

from lightning_arc.arc import Candidate, CandidatePool, Pair, PairKey, Task, as_grid, leave_one_out
from lightning_arc.arc.io.files import file_name
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.sampler import SamplingOptions
from lightning_arc.data.ttt import WHOLE_SET, TestTimeDataset, dataset_key, prompts_beside
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer

PROMPT = "verify-output-from-examples-v1"


def grid(*cells: int):
    return as_grid([[*cells], [*cells]])


@pytest.fixture(scope="module")
def prompt_encoder():
    return PromptEncoder(load_tokenizer(None))


@pytest.fixture
def task():
    pairs = [Pair(grid(i, 0, 1), grid(1, 0, i)) for i in range(2, 6)]
    return Task("some/task", tuple(pairs[:3]), (pairs[3], Pair(grid(9, 9, 9), None)))


def dataset_of(
    task, prompt_encoder, number: int = -2, pool=None, collate=list, seed: int = 0, **options
) -> TestTimeDataset:
    episode = [*leave_one_out(task)][number]
    settings = SamplingOptions(**{"distractor_probability": 0.0, "keep_background_probability": 1.0} | options)
    how = pool or CandidatePool(), prompt_encoder, settings, [PROMPT], collate, seed
    return TestTimeDataset(dataset_key(episode.key, "task"), [episode], {task.id: task}, *how)


def set_dataset_of(tasks, prompt_encoder, pool=None, **options) -> TestTimeDataset:
    episodes = [[*leave_one_out(task)][-1] for task in tasks]
    settings = SamplingOptions(**{"distractor_probability": 0.0} | options)
    how = pool or CandidatePool(), prompt_encoder, settings, [PROMPT], list, 0
    return TestTimeDataset(WHOLE_SET, episodes, {task.id: task for task in tasks}, *how)


def test_all_test_inputs_of_a_task_share_a_dataset_and_each_left_out_pair_has_its_own(task):
    keys = [dataset_key(key, "task") for key in task.keys()]  # noqa: SIM118
    assert keys[3] == keys[4] == PairKey("some/task", "test", 0) and len(set(keys)) == 4


def test_batches_follow_from_their_number_alone(task, prompt_encoder):
    one, again = dataset_of(task, prompt_encoder), dataset_of(task, prompt_encoder)
    later = again.batch(5, 2)
    for first, second in zip(one.batch(5, 2), later, strict=True):
        assert np.array_equal(first.prefix, second.prefix)
    other = [tree.prefix.tolist() for tree in dataset_of(task, prompt_encoder, seed=1).batch(5, 2)]
    assert other != [tree.prefix.tolist() for tree in later]
    assert [t.prefix.tolist() for t in one.batch(2, 2)] == [t.prefix.tolist() for t in one.batch(1, 4)[:2]]


def test_nothing_of_the_query_and_of_other_test_inputs_is_trained_on(task, prompt_encoder):
    marked = Task(task.id, task.demonstrations, (Pair(grid(8, 8), grid(7, 7)), Pair(grid(6, 6, 6, 6), None)))
    sampler = dataset_of(marked, prompt_encoder)._sampler
    episodes = [sampler.episode(number)[0] for number in range(60)]
    for episode in episodes:
        assert len(episode.demonstrations) == 2 and episode.query.shape in ((2, 3), (3, 2))
        assert {len(np.unique(pair.input)) for pair in episode.demonstrations} == {3}
    assert {episode.key.index for episode in episodes} == {0, 1, 2}


def test_a_pair_that_is_left_out_is_not_trained_on_and_the_test_pair_stands_for_it(task, prompt_encoder):
    for place in range(3):
        episodes = [dataset_of(task, prompt_encoder, place)._sampler.episode(number)[0] for number in range(60)]
        # Colours are permuted, the number of distinct ones is not; trained on are the three other known pairs.
        assert {episode.key.index for episode in episodes} == {0, 1, 2}
        assert all(len(episode.demonstrations) == 2 for episode in episodes)
        trained_on = dataset_of(task, prompt_encoder, place)._sampler.sources[0].tasks[0].demonstrations
        assert [pair in trained_on for pair in task.demonstrations] == [i != place for i in range(3)]
        assert task.tests[0] in trained_on


def test_wrong_predictions_are_the_candidates_that_were_proposed_for_the_very_pair(task, prompt_encoder):
    pool, wrong = CandidatePool(), [grid(i, i, i, i) for i in range(5)]
    for i in range(3):
        pool.add(PairKey(task.id, "train", i), Candidate(task.demonstrations[i].output))
        pool.add(PairKey(task.id, "train", i), Candidate(wrong[i]))
    pool.add(PairKey(task.id, "test", 0), Candidate(wrong[3]))
    for place, expected in ((-2, [0, 1, 2]), (1, [0, 3, 2])):
        own = dataset_of(task, prompt_encoder, place, pool)._sampler.sources[0].pool
        for i, number in enumerate(expected):
            grids = [c.grid for c in own[PairKey(task.id, "train", i)]]
            assert any(np.array_equal(g, wrong[number]) for g in grids)
        sampler = dataset_of(task, prompt_encoder, place, pool, wrong_per_episode=1)._sampler
        for number in range(20):
            answers = sampler.episode(number)[0].answers
            assert [a.correct for a in answers] == [True, False] and answers[1].grid.size == 8


def test_a_task_of_one_demonstration_has_no_batches(task, prompt_encoder):
    alone = Task("one", task.demonstrations[:1], task.tests[:1])
    assert not dataset_of(alone, prompt_encoder, -1).usable
    assert dataset_of(alone, prompt_encoder, -1).batch(0, 1) is None


def test_a_task_that_is_too_long_has_no_batches(task, prompt_encoder):
    assert dataset_of(task, prompt_encoder, max_seq_len=20).batch(0, 1) is None


def test_tasks_are_not_composed(task, prompt_encoder):
    sampler = dataset_of(task, prompt_encoder, compose_new_task_probability=1.0)._sampler
    assert all(sampler.sample(number).composition is None for number in range(10))


def marked(task, name: str, mark: int) -> Task:
    """Return a task whose tests, not its demonstrations, have rows of two cells."""
    pairs = [Pair(grid(i, 0, mark), grid(mark, 0, i)) for i in range(1, 4)]
    return Task(name, tuple(pairs), (Pair(grid(8, mark), grid(7, mark)), Pair(grid(mark, mark), None)))


def test_a_set_has_the_demonstrations_of_all_its_tasks_and_nothing_of_their_tests(task, prompt_encoder):
    tasks = [marked(task, "a", 5), marked(task, "b", 6), Task("single", task.demonstrations[:1], task.tests[:1])]
    pool = CandidatePool()
    pool.add(PairKey("a", "train", 0), Candidate(grid(4, 4, 4), 1))
    pool.add(PairKey("a", "test", 0), Candidate(grid(3, 3), 1))
    dataset = set_dataset_of(tasks, prompt_encoder, pool)
    assert dataset.usable and dataset.name == "@set"
    episodes = [dataset._sampler.episode(number)[0] for number in range(60)]
    assert {episode.key.task_id for episode in episodes} == {"a", "b"}
    for episode in episodes:
        grids = [episode.query, episode.output]
        grids += [g for pair in episode.demonstrations for g in (pair.input, pair.output)]
        assert len(episode.demonstrations) == 2 and all(g.size == 6 for g in grids)
    proposed = dataset._sampler.sources[0].pool
    assert len(proposed[PairKey("a", "train", 0)]) == 1 and not proposed[PairKey("a", "test", 0)]
    without = [Task(t.id, t.demonstrations, tuple(Pair(pair.input, None) for pair in t.tests)) for t in tasks]
    one, other = dataset.batch(3, 8), set_dataset_of(without, prompt_encoder, pool).batch(3, 8)
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first.prefix, second.prefix)
        assert [b.tokens.tolist() for b in first.branches] == [b.tokens.tolist() for b in second.branches]


def test_a_set_of_single_demonstrations_has_no_batches(task, prompt_encoder):
    dataset = set_dataset_of([Task("one", task.demonstrations[:1], task.tests[:1])], prompt_encoder)
    assert not dataset.usable and dataset.batch(0, 1) is None


def test_tasks_of_a_set_are_composed_as_the_settings_say(task, prompt_encoder):
    sampler = set_dataset_of([task], prompt_encoder, compose_new_task_probability=1.0)._sampler
    assert any(sampler.sample(number).composition for number in range(10))


def test_verdicts_and_writing_are_trained_beside_every_prompt_of_verdicts():
    assert prompts_beside(PROMPT) == [PROMPT]
    v0 = "verify-output-from-examples-v0"
    assert prompts_beside(v0) == [v0, "output-from-examples-v1"]


def test_a_datasets_name_is_a_files_name_that_no_other_dataset_has(task, prompt_encoder):
    assert dataset_of(task, prompt_encoder).name == file_name("some/task")
    assert dataset_of(task, prompt_encoder, 1).name == file_name("some/task") + "@pair1"
    named = Task("some/task@pair1", task.demonstrations, task.tests)
    assert dataset_of(named, prompt_encoder).name not in {
        dataset_of(task, prompt_encoder, number).name for number in range(5)
    }


def test_a_batch_is_one_for_training(task, prompt_encoder):
    def collate(trees):
        return TreeBatch.collate(trees, prompt_encoder.yes_id, prompt_encoder.no_id, training=True)

    batch = dataset_of(task, prompt_encoder, collate=collate).batch(0, 2)
    assert len(batch.shapes) == 2 and all(shape.correct[0] == 1 and 0 in shape.correct for shape in batch.shapes)
