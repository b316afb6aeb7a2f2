"""How long the episodes of each source of the training mixture are, and how fast it is made: `make bench`.

The mixture is that of `configs/fit_bundled.yaml` with `configs/fit_bundled_data.yaml`, as far as its files are there.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sampler import SkippedError, fit_demonstrations
from lightning_arc.data.sources import DatasetConfig
from tests.benchmarks.ways import table

EPISODES, WARM, SAMPLES = 400, 400, 2000
LIMITS = (2048, 3072, 4096)
NEEDED = 5000
"""Tokens a second that a small model trains with on two cores."""


def mixture(root: Path, folder: Path | None) -> dict:
    """Return the settings of the data module, with the further datasets where there is a folder of them."""
    settings = yaml.safe_load((root / "configs" / "fit_bundled.yaml").read_text())["data"]
    if folder is not None:
        more = yaml.safe_load((root / "configs" / "fit_bundled_data.yaml").read_text())
        settings["train_datasets"] += more["data"]["train_datasets+"]
        os.environ["ARC_DATA"] = str(folder)
    settings["train_datasets"] = [DatasetConfig(**dataset) for dataset in settings["train_datasets"]]
    return settings | {"val_dataset": DatasetConfig(**settings["val_dataset"]), "samples_per_epoch": 10**9}


@pytest.fixture(scope="module")
def made(repo_root: Path) -> ArcDataModule:
    """The data module of the mixture."""
    folder = Path(os.environ.get("ARC_SHARED", repo_root.parent / "shared")) / "data"
    data = ArcDataModule(**mixture(repo_root, folder if (folder / "tasks").is_dir() else None))
    data.setup("fit")
    return data


def lengths(data: ArcDataModule, place: int) -> tuple[list[int], dict[int, tuple[float, float]]]:
    """Return the longest sequences of a dataset's episodes, all demonstrations shown, and shares that a limit keeps.

    The shares are of episodes that are kept as they are, and of those that are kept with fewer demonstrations.
    """
    sampler, longest, kept = data.training.sampler, [], {limit: [0, 0] for limit in LIMITS}
    index = 0
    while len(longest) < EPISODES:
        index += 1
        if sampler.choice(index)[0] is not sampler.sources[place]:
            continue
        try:
            episode, prompt, _ = sampler.episode(index)
        except SkippedError:
            continue
        longest.append(fit_demonstrations(data.prompt_encoder, episode, prompt, 10**9, False).longest)
        for limit in LIMITS:
            if longest[-1] <= limit:
                kept[limit][0] += 1
            elif fit_demonstrations(data.prompt_encoder, episode, prompt, limit, True) is not None:
                kept[limit][1] += 1
    return longest, {limit: (whole / EPISODES, fewer / EPISODES) for limit, (whole, fewer) in kept.items()}


def test_lengths_by_source(made):
    rows = []
    for place, source in enumerate(made.training.sampler.sources):
        longest, kept = lengths(made, place)
        quantiles = [f"{int(q):,}" for q in np.percentile(longest, [50, 90, 99])]
        shares = [f"{whole:.1%} + {fewer:.1%}" for whole, fewer in kept.values()]
        rows.append([source.name, f"{source.weight / sum(s.weight for s in made.training.sampler.sources):.1%}"])
        rows[-1] += [f"{len(source.tasks):,}", *quantiles, *shares]
        # What the configuration's limit keeps is most of every source.
        assert sum(kept[4096]) > 0.95
    limits = [f"{limit:,}" for limit in LIMITS]
    table("longest sequences", ["source", "samples", "tasks", "median", "90%", "99%", *limits], rows)


def test_the_mixture_is_made_faster_than_a_small_model_trains(made):
    def in_this_process() -> Iterator:
        number = 0
        while True:
            yield made.training.batch(range(number, number + made.options.batch_size))
            number += made.options.batch_size

    rows = []
    for name, batches in (("one process", in_this_process()), ("one worker", iter(made.train_dataloader()))):
        for _ in range(WARM // made.options.batch_size):
            next(batches)
        trees = tokens = 0
        start = time.perf_counter()
        while trees < SAMPLES:
            batch = next(batches)
            trees, tokens = trees + len(batch.shapes), tokens + sum(batch.n_tokens)
        seconds = time.perf_counter() - start
        rows.append([name, f"{trees / seconds:,.0f}", f"{tokens / seconds:,.0f}", f"{tokens / trees:,.0f}"])
        assert tokens / seconds > 5 * NEEDED
    table("training mixture", ["", "trees/s", "tokens/s", "tokens a tree"], rows)
