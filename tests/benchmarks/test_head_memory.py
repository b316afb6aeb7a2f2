"""The head: peak memory and time of a training step over 8,192 targets with Qwen2.5's vocabulary: `make bench`.

Qwen2.5-0.5B's widths and two layers, random weights, LoRA; the plain way makes all logits at once, as the library does.
"""

import time

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, Qwen2Config

from lightning_arc.model.head import Head, chunked_cross_entropy
from lightning_arc.model.load import Lora, add_lora

from .ways import in_own_process, main, peak_mb, table

TOKENS = 8192
WAYS = {"full": "all logits at once", "chunks": "chunks of logits", "trimmed": "chunks, 300 tokens kept"}


def measure(backend: str) -> dict:
    torch.manual_seed(0)
    config = Qwen2Config(
        **{"vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 2},
        **{"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
    )
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if backend == "trimmed":
        import numpy as np

        from lightning_arc.model.vocabulary import trim

        trim(base, np.arange(300, dtype=np.int32))
    model = add_lora(base, Lora(r=16), None).get_base_model()
    ids = torch.randint(300, (TOKENS,))
    before, start = peak_mb(), time.perf_counter()
    hidden = model.get_decoder()(input_ids=ids[None, :-1], use_cache=False).last_hidden_state[0]
    if backend == "full":
        logits = model.get_output_embeddings()(hidden).float()
        loss = F.cross_entropy(logits, ids[1:])
    else:
        weights = torch.full((TOKENS - 1,), 1 / (TOKENS - 1))
        loss = chunked_cross_entropy(Head.of(model), hidden, ids[1:], weights)[0]
    loss.backward()
    norm = float(sum(p.grad.double().square().sum() for p in model.parameters() if p.grad is not None) ** 0.5)
    seconds = time.perf_counter() - start
    return {"loss": float(loss), "norm": norm, "seconds": seconds, "peak_mb": peak_mb(), "own_mb": peak_mb() - before}


def test_peak_memory_of_a_step():
    results = {backend: in_own_process(__file__, backend) for backend in WAYS}
    assert results["chunks"]["loss"] == pytest.approx(results["full"]["loss"], rel=1e-5)
    assert results["chunks"]["norm"] == pytest.approx(results["full"]["norm"], rel=1e-3)
    rows = []
    for backend, name in WAYS.items():
        r = results[backend]
        ratio = results["full"]["peak_mb"] / r["peak_mb"]
        rows.append((name, f"{r['seconds']:.1f}", f"{r['peak_mb']:,.0f} MB", f"{r['own_mb']:,.0f} MB", f"{ratio:.1f}"))
    columns = ("", "seconds", "peak of the process", "of it the step's", "times less than full")
    table(f"a training step of {TOKENS:,} targets, 151,936 tokens, two layers", columns, rows)


if __name__ == "__main__":
    main(measure)
