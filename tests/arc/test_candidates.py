import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_arc.arc import Candidate, CandidatePool, Episode, PairKey, add_right_outputs, as_grid, same_grid
from lightning_arc.arc.io.merged_pool import LimitedPool

grids = arrays(np.int8, st.tuples(st.integers(1, 2), st.integers(1, 2)), elements=st.integers(0, 1))
candidates = st.builds(
    Candidate,
    grids,
    st.integers(1, 3),
    st.lists(st.sampled_from("xyz"), max_size=2, unique=True).map(tuple),
    st.none() | st.floats(-9, 0),
)
keys = st.builds(PairKey, st.sampled_from("ab"), st.sampled_from(["train", "test"]), st.integers(0, 1))
entries = st.lists(st.tuples(keys, candidates), max_size=12)
KEY = PairKey("a", "test", 0)


def filled(found):
    pool = CandidatePool()
    for key, candidate in found:
        pool.add(key, candidate)
    return pool


def contents(pool):
    return {key: [(c.grid.tolist(), c.votes, set(c.sources), c.log_likelihood) for c in pool[key]] for key in pool}


@given(entries)
def test_equal_grids_of_a_pair_become_one_candidate_with_the_votes_and_sources_of_all(found):
    pool = filled(found)
    for key in pool:
        for c in pool[key]:
            same = [other for k, other in found if k == key and same_grid(other.grid, c.grid)]
            assert c.votes == sum(other.votes for other in same)
            assert list(c.sources) == list(dict.fromkeys(source for other in same for source in other.sources))
            known = [other.log_likelihood for other in same if other.log_likelihood is not None]
            assert c.log_likelihood == max(known, default=None)
    votes = sum(c.votes for key in pool for c in pool[key])
    assert votes == sum(candidate.votes for _, candidate in found)
    assert pool.n_grids == sum(len(pool[key]) for key in pool)


@given(entries)
def test_candidates_are_in_order_of_first_appearance(found):
    pool = filled(found)
    assert list(pool) == list(dict.fromkeys(key for key, _ in found))
    for key in pool:
        seen = []
        for other_key, candidate in found:
            if other_key == key and candidate.grid.tolist() not in seen:
                seen.append(candidate.grid.tolist())
        assert [c.grid.tolist() for c in pool[key]] == seen


@given(entries, entries)
def test_merging_is_adding_everything_of_both(one, other):
    merged = filled(one)
    merged.merge(filled(other))
    assert contents(merged) == contents(filled(one + other))


@given(entries, grids)
def test_wrong_candidates_are_all_but_the_right_one(found, right):
    pool = filled([(KEY, candidate) for _, candidate in found])
    wrong = pool.wrong(KEY, right)
    assert not any(same_grid(grid, right) for grid in wrong)
    assert len(wrong) == len(pool[KEY]) - any(same_grid(c.grid, right) for c in pool[KEY])


def test_an_unknown_pair_has_no_candidates_and_does_not_become_known_by_asking():
    pool = CandidatePool()
    assert pool[KEY] == () and pool.wrong(KEY, np.zeros((1, 1), np.int8)) == []
    assert KEY not in pool and len(pool) == 0
    pool.open(KEY)
    assert KEY in pool and pool[KEY] == () and pool.n_grids == 0


@given(entries, grids)
def test_right_outputs_are_added_once_behind_the_rest_and_change_nothing_else(found, right):
    before, pool = filled(found), filled(found)
    pool.open(PairKey("c", "test", 0))
    episodes = [Episode(key, (), right, None if key.index else right) for key in pool]
    missing = [e.key for e in episodes if before[e.key] and not any(same_grid(c.grid, right) for c in before[e.key])]
    n = sum(key.index == 0 for key in missing)
    assert add_right_outputs(pool, episodes) == n and add_right_outputs(pool, episodes) == 0
    for key in pool:
        more = contents(pool)[key][len(before[key]) :]
        assert contents(pool)[key][: len(before[key])] == contents(before).get(key, [])
        assert more in ([], [(right.tolist(), 0, set(), None)])
        assert bool(before[key]) or not more


def test_a_limited_pool_draws_from_some_wrong_predictions_of_a_pair_always_the_same() -> None:
    pool, key, right = CandidatePool(), PairKey("t", "train", 0), as_grid([[9]])
    for i in range(10):
        pool.add(key, Candidate(as_grid([[i]])))
    limited = LimitedPool(pool, 4)
    wrong = {grid.tobytes() for grid in limited.wrong(key, right)}
    assert len(wrong) == 4 and right.tobytes() not in wrong and len(limited[key]) == 10
    drawn = [limited.draw_wrong(np.random.default_rng(seed), key, right, 3) for seed in range(30)]
    assert all(len(grids) == 3 for grids in drawn)
    assert {grid.tobytes() for grids in drawn for grid in grids} == wrong
    assert len(LimitedPool(pool, 20).wrong(key, right)) == 9 and key in limited and [*limited] == [key]
    assert limited.draw_wrong(np.random.default_rng(0), PairKey("u", "train", 0), right, 3) == []
    others = [PairKey("t", "train", i) for i in range(1, 9)]
    for other in others:
        for i in range(10):
            pool.add(other, Candidate(as_grid([[i]])))
    assert len({tuple(grid.item() for grid in limited.wrong(other, right)) for other in others}) > 4  # not the same
