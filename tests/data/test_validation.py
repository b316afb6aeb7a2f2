"""Validation episodes, as every prompt asks about them."""

from dataclasses import replace

import pytest
from torch.utils.data import DistributedSampler

from lightning_arc.arc import Episode, LabeledCandidate, Pair, PairKey, Task, as_grid, write_tasks
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.data.validation import episode_for_prompt, without_scores
from lightning_arc.prompt.templates import MAX_OPTIONS, PROMPTS

GRIDS = [as_grid([[i % 10, i // 10]]) for i in range(40)]
ANSWERS = tuple(LabeledCandidate(grid, i == 13, i, votes=40 - i) for i, grid in enumerate(GRIDS[:16]))
EPISODE = Episode(PairKey("t", "test", 0), (Pair(GRIDS[20], GRIDS[21]),), GRIDS[22], GRIDS[13], ANSWERS)
SELECT = "select-output-from-examples-v0"


def test_a_selection_has_the_right_answer_among_as_many_as_there_is_room_for():
    places = set()
    for number in range(200):
        episode = episode_for_prompt(replace(EPISODE, key=PairKey(f"t{number}", "test", 0)), SELECT, seed=1)
        assert len(episode.answers) == MAX_OPTIONS and len({a.index for a in episode.answers}) == MAX_OPTIONS
        (place,) = (i for i, answer in enumerate(episode.answers) if answer.correct)
        places.add(place)
    assert places == set(range(MAX_OPTIONS))
    again = [episode_for_prompt(EPISODE, SELECT, seed=1).answers for _ in range(2)]
    assert [a.index for a in again[0]] == [a.index for a in again[1]]
    assert episode_for_prompt(replace(EPISODE, answers=ANSWERS[13:14]), SELECT, seed=1) is None


def test_other_prompts_keep_all_answers_and_those_of_code_apply_only_where_there_is_some():
    for prompt, kind in PROMPTS.items():
        if prompt != SELECT:
            assert (episode_for_prompt(EPISODE, prompt, 0) is EPISODE) == ("code" not in kind.label)
            with_code = replace(EPISODE, code="f")
            assert episode_for_prompt(with_code, prompt, 0) is with_code


def test_the_candidates_of_a_solver_are_ranked_and_what_was_added_to_them_is_not():
    e = without_scores(replace(EPISODE, answers=(*ANSWERS[:13], replace(ANSWERS[13], votes=0))))
    assert e.key == EPISODE.key and [c.votes for c in e.candidates] == list(range(40, 27, -1))
    assert e.correct == [False] * 13 and not e.records
    assert without_scores(EPISODE).correct[13] is True
    assert without_scores(replace(EPISODE, answers=tuple(replace(a, votes=0) for a in ANSWERS))) is None


def test_a_prompt_of_weight_0_is_not_asked(tmp_path):
    write_tasks([Task("t", (Pair(GRIDS[1], GRIDS[2]),), (Pair(GRIDS[3], GRIDS[4]),))], tmp_path / "tasks.json")
    prompts = {"verify-output-from-examples-v1": 1.0, "input-from-inputs-v0": 0.0}
    data = ArcDataModule(val_dataset=DatasetConfig(str(tmp_path / "tasks.json"), prompts), max_seq_len=1024)
    data.setup("validate")
    assert data.validation.prompts == ["verify-output-from-examples-v1"] and len(data.validation.loader()) == 1


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_measure_each_tree_once_in_as_many_batches(tmp_path, world_size):
    pair = Pair(GRIDS[1], GRIDS[2])
    write_tasks([Task(f"t{i}", (pair,), (Pair(GRIDS[i], GRIDS[i + 1]),)) for i in range(5)], tmp_path / "tasks.json")
    prompts = ["verify-output-from-examples-v1"]
    data = ArcDataModule(val_dataset=DatasetConfig(str(tmp_path / "tasks.json"), prompts), max_seq_len=1024)
    data.setup("validate")
    loader = data.validation.loader(world_size)
    shares = [DistributedSampler(loader.dataset, world_size, rank, shuffle=False) for rank in range(world_size)]
    found = [[data.validation.batch([loader.dataset[i]]).info for i in share] for share in shares]  # as Lightning does
    assert len({len(batches) for batches in found}) == 1
    assert sorted(info["episode"] for batches in found for batch in batches for info in batch) == [0, 1, 2, 3, 4]
