"""Views: every grid alike, and every grid back."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_arc.arc import Episode, Grid, LabeledCandidate, PairKey, same_grid
from lightning_arc.augment.views import (
    IDENTITY,
    N_SYMMETRIES,
    View,
    common_views,
    dihedral,
    draw_colours,
    draw_view,
    inverse_colours,
    inverse_dihedral,
    permute_colours,
    swap_query,
)

KEY = PairKey("3c9b0459", "test", 0)
# All eight symmetries show it differently, so that it tells them apart.
LOPSIDED = np.array([[1, 2, 3], [4, 5, 6]], np.int8)
VIEWS = st.builds(lambda seed: draw_view(np.random.default_rng(seed), 3), st.integers(0, 2**32))


def all_grids(episode: Episode) -> list[Grid]:
    pairs = [grid for pair in episode.demonstrations for grid in (pair.input, pair.output)]
    return [*pairs, episode.query, episode.output, *(answer.grid for answer in episode.answers)]


@settings(deadline=None, max_examples=100)
@given(data=st.data(), view=VIEWS)
def test_a_view_and_its_inverse_give_back_every_grid(data: st.DataObject, view: View, grids: Any) -> None:
    grid = data.draw(grids)
    shown = view.apply_grid(grid)
    assert shown.dtype == np.int8
    assert shown.flags.c_contiguous
    assert same_grid(view.invert_grid(shown), grid)
    assert same_grid(view.apply_grid(view.invert_grid(grid)), grid)


@pytest.mark.parametrize("element", range(N_SYMMETRIES))
def test_a_symmetry_is_a_mirroring_followed_by_quarter_turns(element: int) -> None:
    first = LOPSIDED[:, ::-1] if element >= 4 else LOPSIDED
    assert same_grid(dihedral(LOPSIDED, element), np.rot90(first, element % 4))


def test_the_symmetries_are_the_group_of_the_square() -> None:
    images = {dihedral(LOPSIDED, e).tobytes() + bytes(dihedral(LOPSIDED, e).shape) for e in range(N_SYMMETRIES)}
    assert len(images) == N_SYMMETRIES
    for first, second in product(range(N_SYMMETRIES), repeat=2):
        both = dihedral(dihedral(LOPSIDED, first), second)
        assert both.tobytes() + bytes(both.shape) in images
    for element in range(N_SYMMETRIES):
        assert same_grid(dihedral(dihedral(LOPSIDED, element), inverse_dihedral(element)), LOPSIDED)
        assert same_grid(dihedral(dihedral(LOPSIDED, inverse_dihedral(element)), element), LOPSIDED)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), keep=st.floats(0, 1))
def test_a_colour_permutation_holds_every_colour_once(seed: int, keep: float) -> None:
    colours = draw_colours(np.random.default_rng(seed), keep)
    assert colours.dtype == np.int8
    assert sorted(colours.tolist()) == [*range(10)]
    assert permute_colours(permute_colours(LOPSIDED, colours), inverse_colours(colours)).tolist() == LOPSIDED.tolist()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9, 1.0])
def test_the_background_is_kept_as_often_as_asked(keep: float) -> None:
    rng = np.random.default_rng(1)
    kept = np.mean([draw_colours(rng, keep)[0] == 0 for _ in range(4000)])
    assert kept == pytest.approx(keep + (1 - keep) / 10, abs=0.03)  # the rest keeps it by chance, one time in ten


def test_every_colour_goes_everywhere() -> None:
    rng = np.random.default_rng(2)
    drawn = np.array([draw_colours(rng, 0.0) for _ in range(5000)])
    counts = np.array([[(drawn[:, c] == to).mean() for to in range(10)] for c in range(10)])
    assert counts == pytest.approx(0.1, abs=0.03)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_every_grid_of_an_episode_is_shown_alike(data: st.DataObject, seed: int, episodes: Any) -> None:
    episode = data.draw(episodes())
    view = replace(draw_view(np.random.default_rng(seed), len(episode.demonstrations)), order=None)
    before, after = all_grids(episode), all_grids(view.apply(episode))
    for (g1, h1), (g2, h2) in product(zip(before, after, strict=True), repeat=2):
        assert same_grid(g1, g2) == same_grid(h1, h2)
    for grid, shown in zip(before, after, strict=True):
        assert same_grid(view.apply_grid(grid), shown)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_a_view_reorders_demonstrations_and_leaves_answers_in_place(
    data: st.DataObject, seed: int, episodes: Any
) -> None:
    episode = data.draw(episodes())
    view = draw_view(np.random.default_rng(seed), len(episode.demonstrations))
    shown = view.apply(episode)
    assert shown.key == episode.key
    for place, i in enumerate(view.order):
        assert same_grid(view.invert_grid(shown.demonstrations[place].input), episode.demonstrations[i].input)
        assert same_grid(view.invert_grid(shown.demonstrations[place].output), episode.demonstrations[i].output)
    facts = [(a.correct, a.index, a.votes) for a in episode.answers]
    assert [(a.correct, a.index, a.votes) for a in shown.answers] == facts
    for answer, old in zip(shown.answers, episode.answers, strict=True):
        assert same_grid(view.invert_grid(answer.grid), old.grid)


def test_a_view_of_an_unknown_output_leaves_it_unknown() -> None:
    episode = Episode(KEY, (), LOPSIDED, None, (LabeledCandidate(LOPSIDED, None),))
    shown = View(symmetry=3).apply(episode)
    assert shown.output is None
    assert shown.answers[0].correct is None


def test_the_identity_shows_an_episode_as_it_is() -> None:
    assert same_grid(IDENTITY.apply_grid(LOPSIDED), LOPSIDED)
    assert str(IDENTITY) == "as it is"


def test_views_are_equal_hashable_and_named_by_what_they_do() -> None:
    colours = (0, 2, 1, *range(3, 10))
    assert {View(5, colours, (1, 0)): 1}[View(5, colours, (1, 0))] == 1
    assert str(View(5, colours, (1, 0))) == "mirrored, turned 90, colours 0213456789, order 1 0"
    assert str(View(order=(0, 1))) == "as it is"


@pytest.mark.parametrize(
    "arguments",
    [{"symmetry": 8}, {"symmetry": -1}, {"colours": (0,) * 10}, {"colours": (1, 0)}, {"order": (0, 2)}],
)
def test_a_view_that_cannot_be_undone_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        View(**arguments)


def test_a_view_for_another_number_of_demonstrations_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3c9b0459/test\[0\]: has 0 demonstrations, the view orders 2"):
        View(order=(1, 0)).apply(Episode(KEY, (), LOPSIDED, None))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 8))
def test_what_is_switched_off_is_left_as_it_is(seed: int, n: int) -> None:
    off = {"symmetry": False, "colours": False, "order": False}
    assert draw_view(np.random.default_rng(seed), n, **off) == IDENTITY
    assert draw_view(np.random.default_rng(seed), n) == draw_view(np.random.default_rng(seed), n)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(0, 40), n_demonstrations=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_common_views_cover_the_symmetries_evenly(n: int, n_demonstrations: int, seed: int) -> None:
    views = common_views(n, n_demonstrations, seed, KEY)
    assert len(views) == n
    assert views[:1] == [IDENTITY][:n]
    for start in range(0, n - 7, 8):
        assert {view.symmetry for view in views[start : start + 8]} == {*range(N_SYMMETRIES)}
    assert views == common_views(50, n_demonstrations, seed, KEY)[:n]


def test_common_views_differ_between_seeds_and_test_inputs() -> None:
    views = common_views(16, 3, 0, KEY)
    assert views == common_views(16, 3, 0, PairKey(*KEY))
    assert len(set(views)) == 16
    for seed, key in ((1, KEY), (0, KEY._replace(index=1)), (0, KEY._replace(split="train"))):
        assert common_views(16, 3, seed, key)[1:] != views[1:]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_swapping_exchanges_query_and_demonstration(data: st.DataObject, episodes: Any) -> None:
    episode = data.draw(episodes(answers=False))
    i = data.draw(st.integers(0, len(episode.demonstrations) - 1))
    key = PairKey("drawn", "train", i + 3)
    swapped = swap_query(episode, i, key)
    assert swapped.key == key
    assert swapped.query is episode.demonstrations[i].input
    assert swapped.output is episode.demonstrations[i].output
    back = swap_query(swapped, i, episode.key)
    assert back.key == episode.key
    assert all(one is other for one, other in zip(all_grids(back), all_grids(episode), strict=True))


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_swapping_is_refused_with_answers_or_without_the_output(data: st.DataObject, episodes: Any) -> None:
    episode = data.draw(episodes())
    key = PairKey("drawn", "train", 0)
    with pytest.raises(ValueError, match="no answers"):
        swap_query(episode, 0, key)
    with pytest.raises(ValueError, match="known output"):
        swap_query(replace(episode, answers=(), output=None), 0, key)


def test_every_real_training_grid_comes_back(training_episodes: list[Episode]) -> None:
    assert len({episode.key.task_id for episode in training_episodes}) == 400
    for episode in training_episodes:
        view = draw_view(np.random.default_rng(int(episode.key.task_id, 16)), len(episode.demonstrations))
        shown = view.apply(episode)
        pairs = [shown.demonstrations[view.order.index(i)] for i in range(len(view.order))]
        back = [g for p in pairs for g in (p.input, p.output)] + [shown.query, shown.output]
        for grid, old in zip(back, all_grids(episode), strict=True):
            assert same_grid(view.invert_grid(grid), old)
