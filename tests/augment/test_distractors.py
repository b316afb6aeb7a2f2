"""Distractors: grids that look right and are wrong."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_arc.arc import Episode, Pair, PairKey, as_grid, same_grid
from lightning_arc.arc.grid import grid_key
from lightning_arc.augment.distractors import DEFAULT_WEIGHTS, MAKERS, MAX_CHANGED_CELLS, draw_distractors
from lightning_arc.augment.objects import object_at
from lightning_arc.errors import DataError

INPUT = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 2]], np.int8)
OUTPUT = np.array([[3, 0, 0], [1, 1, 3], [3, 3, 2]], np.int8)
OTHER = np.array([[4, 4], [5, 5]], np.int8)
EPISODE = Episode(PairKey("t", "test", 0), (Pair(OTHER, OTHER),), INPUT, OUTPUT)


def made(maker: str, episode: Episode = EPISODE, n: int = 200) -> list[Any]:
    """What a maker gives with many seeds, where it applies."""
    grids = [MAKERS[maker](np.random.default_rng(seed), episode) for seed in range(n)]
    return [grid for grid in grids if grid is not None]


@settings(deadline=None, max_examples=150)
@given(data=st.data(), seed=st.integers(0, 2**32), n=st.integers(0, 12))
def test_distractors_are_valid_distinct_and_never_right(data: st.DataObject, seed: int, n: int, episodes: Any) -> None:
    episode = data.draw(episodes())
    grids = draw_distractors(np.random.default_rng(seed), episode, n)
    assert len(grids) <= n
    assert len({grid_key(grid) for grid in grids}) == len(grids)
    for grid in grids:
        as_grid(grid)
        assert grid.dtype == np.int8
        assert grid.flags.c_contiguous
        assert not same_grid(grid, episode.output)


@pytest.mark.parametrize("maker", [*MAKERS])
@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_every_maker_works_on_every_episode(maker: str, data: st.DataObject, seed: int, episodes: Any) -> None:
    episode = data.draw(episodes(largest=data.draw(st.sampled_from([1, 2, 30]))))
    for grid in draw_distractors(np.random.default_rng(seed), episode, 3, {maker: 1}):
        as_grid(grid)


def test_every_real_training_task_gives_all_distractors_that_are_asked_for(training_episodes: list[Episode]) -> None:
    for number, episode in enumerate(training_episodes):
        grids = draw_distractors(np.random.default_rng(number), episode, 10)
        assert len(grids) == 10 or (len(grids) >= 4 and episode.output.size == 1)
        assert not any(same_grid(grid, episode.output) for grid in grids)


def test_the_same_seed_gives_the_same_distractors() -> None:
    turned = dict(reversed(DEFAULT_WEIGHTS.items()))
    for seed in range(20):
        one, other = (draw_distractors(np.random.default_rng(seed), EPISODE, 6, w) for w in (DEFAULT_WEIGHTS, turned))
        assert [grid.tolist() for grid in one] == [grid.tolist() for grid in other]


def test_there_is_a_weight_for_every_maker() -> None:
    assert DEFAULT_WEIGHTS.keys() == MAKERS.keys()


def test_a_near_miss_differs_in_one_to_four_cells_and_keeps_to_the_colours() -> None:
    counts = Counter()
    for grid in made("few_cells_changed"):
        counts[int((grid != OUTPUT).sum())] += 1
        assert set(grid.flat) <= set(OUTPUT.flat)
    assert counts.keys() == set(range(1, MAX_CHANGED_CELLS + 1))


def test_a_near_miss_of_a_single_colour_takes_a_colour_of_the_task() -> None:
    plain = replace(EPISODE, output=np.full((3, 3), 7, np.int8))
    colours = {colour for grid in made("few_cells_changed", plain) for colour in grid.flat}
    assert colours == {0, 1, 2, 4, 5, 7}
    alone = Episode(EPISODE.key, (), np.full((1, 1), 7, np.int8), np.full((1, 1), 7, np.int8))
    assert {int(grid[0, 0]) for grid in made("few_cells_changed", alone)} == {*range(10)} - {7}


def test_swapped_colours_exchange_one_of_the_output_with_another_of_the_task() -> None:
    for grid in made("colours_swapped"):
        pairs = {(int(a), int(b)) for a, b in zip(OUTPUT.flat, grid.flat, strict=True) if a != b}
        assert pairs
        assert len({frozenset(pair) for pair in pairs}) == 1
        assert set(grid.flat) <= {0, 1, 2, 3, 4, 5}


def test_a_wrong_shape_lacks_or_doubles_a_row_or_column_at_the_edge() -> None:
    allowed = [OUTPUT[1:], OUTPUT[:-1], OUTPUT[:, 1:], OUTPUT[:, :-1]]
    allowed += [OUTPUT[[0, 0, 1, 2]], OUTPUT[[0, 1, 2, 2]], OUTPUT[:, [0, 0, 1, 2]], OUTPUT[:, [0, 1, 2, 2]]]
    assert {grid_key(g) for g in made("wrong_shape")} == {grid_key(g) for g in allowed}
    for side in (1, 30):
        full = replace(EPISODE, output=np.zeros((side, side), np.int8))
        assert made("wrong_shape", full)
        assert all(grid.shape != (side, side) and max(grid.shape) <= 30 for grid in made("wrong_shape", full))


def test_a_partly_applied_rule_leaves_some_changed_cells_as_in_the_input_and_some_not() -> None:
    grids = made("partly_input")
    assert grids
    for grid in grids:
        assert ((grid == INPUT) | (grid == OUTPUT)).all()
        assert not same_grid(grid, INPUT)
        assert not same_grid(grid, OUTPUT)
    assert not made("partly_input", replace(EPISODE, query=OTHER))
    assert not made("partly_input", replace(EPISODE, query=OUTPUT))


def test_other_grids_of_the_task_and_symmetries_serve_as_they_are() -> None:
    assert all(grid is INPUT for grid in made("the_query", n=3))
    assert all(grid is OTHER for grid in made("another_output", n=3))
    assert not made("another_output", replace(EPISODE, demonstrations=()))
    assert len({grid_key(grid) for grid in made("symmetry")}) == 7


def test_a_maker_that_gives_the_right_output_is_refused() -> None:
    same = Episode(EPISODE.key, (Pair(OTHER, OUTPUT),), OUTPUT, OUTPUT)
    assert draw_distractors(np.random.default_rng(0), same, 4, {"the_query": 1, "another_output": 1}) == []


def test_grids_that_are_there_already_are_not_drawn_again() -> None:
    assert draw_distractors(np.random.default_rng(0), EPISODE, 2, {"the_query": 1}, exclude=[INPUT]) == []
    assert len(draw_distractors(np.random.default_rng(0), EPISODE, 2, {"the_query": 1})) == 1


def test_distractors_need_the_right_output_and_known_makers() -> None:
    with pytest.raises(ValueError, match=r"t/test\[0\]: distractors are made from the right output"):
        draw_distractors(np.random.default_rng(0), replace(EPISODE, output=None), 1)
    with pytest.raises(DataError, match="^distractor_weights: there is no 'luck', expected some of few_cells_changed"):
        draw_distractors(np.random.default_rng(0), EPISODE, 1, {"luck": 1})
    assert draw_distractors(np.random.default_rng(0), EPISODE, 1, {"symmetry": 0}) == []


def test_an_object_is_all_cells_of_its_colour_that_touch(grids: Any) -> None:
    @given(grid=grids, seed=st.integers(0, 2**32))
    def holds(grid: Any, seed: int) -> None:
        cell = int(np.random.default_rng(seed).integers(grid.size))
        inside = np.zeros(grid.shape, bool)
        inside.flat[cell] = True
        while True:  # the plain way: grow by one cell in all directions, within the colour, until nothing is new
            padded = np.pad(inside, 1)
            grown = np.zeros_like(inside)
            for row in range(3):
                for column in range(3):
                    grown |= padded[row : row + grid.shape[0], column : column + grid.shape[1]]
            grown &= grid == grid.flat[cell]
            if (grown == inside).all():
                break
            inside = grown
        assert object_at(grid, cell).tolist() == np.flatnonzero(inside).tolist()

    holds()


BOXES = np.array([[0, 0, 0, 0, 0, 0], [0, 4, 4, 0, 0, 0], [0, 0, 4, 0, 0, 7], [0, 0, 0, 0, 0, 0]], np.int8)
WITH_OBJECTS = replace(EPISODE, output=BOXES)


def test_a_removed_object_is_gone_and_the_others_stay() -> None:
    without_four, without_seven = np.where(BOXES == 4, 0, BOXES), np.where(BOXES == 7, 0, BOXES)
    assert {grid_key(g) for g in made("object_removed", WITH_OBJECTS)} == {
        grid_key(without_four),
        grid_key(without_seven),
    }


def test_a_recoloured_object_keeps_its_place() -> None:
    colours = {4: set(), 7: set()}
    for grid in made("object_recoloured", WITH_OBJECTS):
        changed = grid != BOXES
        (old,), (new,) = set(BOXES[changed]), set(grid[changed])
        assert (changed == (old == BOXES)).all()
        colours[int(old)].add(int(new))
    assert colours == {4: {*range(10)} - {4}, 7: {*range(10)} - {7}}


def test_a_moved_object_keeps_its_form_and_a_duplicated_one_stays_too() -> None:
    for maker, keeps in (("object_moved", False), ("object_duplicated", True)):
        seen = set()
        for grid in made(maker, WITH_OBJECTS):
            seen.add(grid_key(grid))
            assert set(grid.flat) <= {0, 4, 7}
            if keeps:  # what changed has the colour of what was copied
                assert set(grid[grid != BOXES]) in ({4}, {7})
            else:
                assert (grid == 4).sum() == 3 or (grid == 7).sum() == 1
        assert len(seen) > 10


def test_objects_need_something_beside_the_background() -> None:
    plain = replace(EPISODE, output=np.full((3, 3), 7, np.int8))
    for maker in ("object_moved", "object_recoloured", "object_removed", "object_duplicated", "cropped"):
        assert not made(maker, plain)


def test_a_wrong_mapping_gives_the_colours_to_each_other() -> None:
    for grid in made("colours_permuted"):
        assert set(grid.flat) == set(OUTPUT.flat)
        pairs = {(int(a), int(b)) for a, b in zip(OUTPUT.flat, grid.flat, strict=True)}
        assert len(pairs) == len(set(OUTPUT.flat))
    assert not made("colours_permuted", replace(EPISODE, output=np.array([[1, 2]], np.int8)))


def test_right_content_comes_in_wrong_shapes() -> None:
    assert {grid_key(g) for g in made("cropped", WITH_OBJECTS)} == {grid_key(BOXES[1:3, 1:])}
    shapes = {grid.shape for grid in made("repeated", WITH_OBJECTS)}
    assert shapes == {(8, 6), (12, 6), (4, 12), (4, 18)}
    halves = {grid_key(grid) for grid in made("repeated", WITH_OBJECTS) if grid.shape == (8, 6)}
    assert halves == {grid_key(np.concatenate([BOXES, BOXES])), grid_key(BOXES.repeat(2, 0))}
    assert not made("repeated", replace(EPISODE, output=np.zeros((30, 30), np.int8)))


def test_many_are_drawn_where_a_task_gives_many_and_all_that_there_are_where_it_gives_few() -> None:
    many = draw_distractors(np.random.default_rng(0), WITH_OBJECTS, 200)
    assert len({grid_key(grid) for grid in many}) == 200
    small = Episode(EPISODE.key, (), np.full((1, 1), 7, np.int8), np.full((1, 1), 7, np.int8))
    assert 9 <= len(draw_distractors(np.random.default_rng(0), small, 200)) < 40
