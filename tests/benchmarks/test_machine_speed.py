"""How fast models train and rank on this machine, beside an earlier commit and beside other libraries: `make bench`.

`BEFORE=commit` names the commit to compare with; its code runs in a worktree of its own. Every row is a process of its
own. Real evaluation tasks and candidates as data for speed alone; nothing that is trained here is kept.
`ONEDNN_MAX_CPU_ISA=AVX512_CORE` switches matrix units and products in bfloat16 off.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from .ways import IGNORE, TokenTree, main, peak_mb, real_trees, seconds_of_sft, table, tokens_of, whole_sequences

ROOT = Path(__file__).parents[2]
CANDIDATES = str(ROOT / "lightning_arc/bundled/candidates/evaluation_60.json")
QWEN = Path(os.environ.get("ARC_QWEN", "qwen2.5-coder-0.5b"))
SIZES = {
    "1.2 M": {"hidden_size": 128, "layers": 6, "heads": 4, "kv_heads": 2, "intermediate_size": 384},
    "6.3 M": {"hidden_size": 256, "layers": 8, "heads": 4, "kv_heads": 2, "intermediate_size": 768},
    "12.6 M": {"hidden_size": 384, "layers": 8, "heads": 6, "kv_heads": 2, "intermediate_size": 960},
}
BUNDLED = "the bundled model"
BRANCHES, LONGEST = 6, 2048


def product_rate(precision: str) -> float:
    """Operations a second of a large layer's product; independent of the commit that is measured."""
    a = torch.randn(1024, 1024, dtype=torch.bfloat16 if precision.startswith("bf16") else torch.float32)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        torch.nn.functional.linear(a, a)
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


def measure(name: str, work: str, backend: str, precision: str) -> dict:
    """Run ``train``, ``adapt`` or ``rank``: ``trees``, ``single`` prompts through the library, or ``packing`` by TRL.

    ``adapt`` takes the steps of test-time training: a LoRA of rank 16, two short prompts a step.
    """
    from lightning_arc.data.batch import TreeBatch
    from lightning_arc.model.arc_model import ArcModel
    from lightning_arc.model.load import Lora, Scratch
    from lightning_arc.model.optimizers import make_optimizer
    from lightning_arc.model.scoring import score_batch
    from lightning_arc.prompt.prompt_encoder import PromptEncoder
    from lightning_arc.prompt.tokenizer import load_tokenizer
    from lightning_arc.prompt.vocabulary import prompt_vocabulary

    torch.manual_seed(0)
    is_qwen, adapts = name not in (*SIZES, BUNDLED), name == BUNDLED
    tokenizer = load_tokenizer(str(QWEN) if is_qwen else None)
    kept = prompt_vocabulary(PromptEncoder(tokenizer)) if is_qwen and backend == "trees" else None
    prompt_encoder = PromptEncoder(tokenizer, kept=kept)
    if is_qwen:
        module = ArcModel(str(QWEN), lora=Lora(r=32, alpha=32), trim_vocabulary=kept is not None)
    elif adapts:
        module = ArcModel("bundled", lora=Lora(r=16, alpha=16))
    else:
        module = ArcModel(scratch=Scratch(**SIZES[name]))
    module.build(precision, kept)
    module.log = lambda *_, **__: None
    training = work != "rank"
    module.train(training)
    steps, a_step, longest = (12, 2, 700) if adapts else (3, 1 if is_qwen else 4, LONGEST)
    trees = real_trees(prompt_encoder, steps * a_step, CANDIDATES, longest=longest, least=2)
    trees = [TokenTree(t.prefix, t.prefix_targets, t.branches[:BRANCHES], t.prompt) for t in trees]
    groups = [trees[i::steps] for i in range(steps)]
    ids = prompt_encoder.yes_id, prompt_encoder.no_id, prompt_encoder.choice_ids
    casts = precision.endswith("mixed")
    if backend != "trees":
        module.causal_lm.set_attn_implementation("sdpa")
    optimizer = make_optimizer("adamw", module.trained, 1e-4, 0.01, (0.9, 0.95)) if training else None

    def single(group: list[TokenTree]) -> None:
        model = module.causal_lm
        for tree in group:
            for branch in tree.branches:
                row, _, targets = whole_sequences(tree, [branch])
                hidden = model.get_decoder()(input_ids=row, use_cache=False).last_hidden_state
                at = targets != IGNORE
                loss = F.cross_entropy(model.get_output_embeddings()(hidden[at]).float(), targets[at])
                if training:
                    loss.backward()

    def step(group: list[TokenTree]) -> None:
        with (
            torch.autocast("cpu", torch.bfloat16) if casts else nullcontext(),
            nullcontext() if training else torch.inference_mode(),
        ):
            if backend == "single":
                single(group)
            else:
                size = 16_384 if training else 4096
                batch = TreeBatch.collate(group, *ids, max_tokens=size, training=training)
                if training:
                    loss = module.training_step(batch, 0)
                else:
                    score_batch(module.causal_lm, batch)
        if training:
            if backend != "single":
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    if backend == "packing":
        seconds = _packing(module, groups, tokenizer, casts)
    else:
        for group in groups:
            step(group)
        start = time.perf_counter()
        for group in groups:
            step(group)
        seconds = time.perf_counter() - start
    weights = sum(p.numel() for p in module.causal_lm.get_decoder().layers.parameters() if p.dim() == 2)
    tokens = tokens_of(trees, backend != "trees")
    operations = (6 if training and not (is_qwen or adapts) else 4 if training else 2) * weights
    return {
        "tokens": tokens,
        "seconds": seconds,
        "verdicts": sum(len(t.branches) for t in trees),
        "share": operations * tokens / seconds / product_rate(precision),
        "peak_mb": peak_mb(),
    }


def _packing(module, groups: list[list[TokenTree]], tokenizer, casts: bool) -> float:
    """TRL's trainer with packing on one sequence an answer; returns the seconds of its training."""
    rows = []
    for tree in (tree for group in groups for tree in group):
        for i, branch in enumerate(tree.branches):
            ids = tree.sequence(i)
            completion = [0] * (len(tree.prefix) + 1) + [int(t != IGNORE) for t in branch.targets]
            rows.append({"input_ids": ids.tolist(), "completion_mask": completion})
    return seconds_of_sft(module.model, rows, tokenizer, bf16=casts)


def run(code: Path, *arguments: str) -> dict:
    """Run `measure` in a process of its own with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": f"{code}{os.pathsep}{ROOT}", "ARC_QWEN": str(QWEN.absolute())}
    command = [sys.executable, "-P", "-m", "tests.benchmarks.test_machine_speed", *arguments]
    done = subprocess.run(command, cwd=tempfile.gettempdir(), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path | None:
    """A checkout of the commit to compare with."""
    commit = os.environ.get("BEFORE")
    if commit is None:
        yield None
        return
    folder = tmp_path_factory.mktemp("before") / "code"
    subprocess.run(["git", "worktree", "add", "--detach", folder, commit], cwd=ROOT, check=True, capture_output=True)
    yield folder
    subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def models() -> list[str]:
    named = list(SIZES)
    return [*named, "Qwen2.5-0.5B, LoRA 32"] if (QWEN / "config.json").is_file() else named


@pytest.mark.parametrize(
    ("name", "work"), [*((name, work) for name in models() for work in ("train", "rank")), (BUNDLED, "adapt")]
)
def test_trees_beside_an_earlier_commit_and_beside_other_libraries(name, work, before):
    from lightning_arc.model.machine import fastest_precision

    chosen = fastest_precision()
    is_small = name in (*SIZES, BUNDLED)
    plan = [("trees", ROOT, "trees", chosen)]
    if before is not None:
        plan += [(f"before, {p}", before, "trees", p) for p in ("32-true", "bf16-mixed") if is_small or p == chosen]
    if is_small and work != "adapt":
        plan.append(("full prompts, transformers", ROOT, "single", chosen))
        if work == "train" and name == "6.3 M":
            plan.append(("full prompts, SFTTrainer with packing", ROOT, "packing", chosen))
    results = {title: run(code, name, work, backend, precision) for title, code, backend, precision in plan}
    ours, rows = results["trees"], []
    for (title, _, _, precision), r in zip(plan, results.values(), strict=True):
        sizes = f"{r['tokens']:,}", f"{r['seconds']:.1f}"
        rates = f"{r['tokens'] / r['seconds']:,.0f}", f"{r['verdicts'] / r['seconds']:.2f}", f"{r['share']:.0%}"
        beside = f"{r['peak_mb']:,.0f} MB", f"{r['seconds'] / ours['seconds']:.1f}"
        rows.append((title, precision, *sizes, *rates, *beside))
    columns = ("", "precision", "tokens", "seconds", "tokens/s", "verdicts/s", "of the peak", "memory", "times as long")
    table(f"{work}: {name}, {torch.get_num_threads()} threads", columns, rows)


if __name__ == "__main__":
    main(measure)
