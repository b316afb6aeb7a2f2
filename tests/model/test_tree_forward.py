"""The tree forward: a pack gives every branch what it has as a separate sequence, in values and in gradients."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from lightning_arc.data.batch import TreeBatch
from lightning_arc.model import tree_forward
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.attention import blocks, cascade
from lightning_arc.model.attention.tree import BLOCK, block_mask, packed_attention, use_tree_attention
from lightning_arc.model.load import Scratch, fingerprint, new_model
from lightning_arc.model.scoring import score_batch
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.tree import IGNORE, PromptKind

from .helpers import (
    CHOICES,
    NO,
    SIZE,
    TREES,
    WAYS,
    YES,
    check_hidden_states,
    collated,
    loss_of_sequences,
    random_tree,
    separate_logits,
)


@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize("max_tokens", [None, 300, 60, 1])
def test_every_token_has_the_hidden_state_of_its_separate_sequence(model, backend, max_tokens):
    plain = copy.deepcopy(model)
    use_tree_attention(model)
    check_hidden_states(model, plain, TREES, max_tokens, backend)


@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize("max_tokens", [None, 60])
def test_tokens_behind_the_end_of_a_pack_change_nothing(model, backend, max_tokens, monkeypatch):
    monkeypatch.setattr(tree_forward, "_multiple", lambda n, decoder: 29)
    plain = copy.deepcopy(model)
    use_tree_attention(model)
    check_hidden_states(model, plain, TREES, max_tokens, backend)


@pytest.mark.skipif(torch.cuda.is_available(), reason="packs on a GPU are multiples of FlexAttention's blocks")
def test_packs_in_16_bits_have_few_different_lengths(model):
    use_tree_attention(model.float())
    given, lengths = [], []
    model.get_decoder().embed_tokens.register_forward_hook(lambda _, ids, __: lengths.append(ids[0].shape[1]))
    for prefix in range(500, 600, 4):
        batch = TreeBatch.collate([random_tree(1, n=1, prefix=prefix)], YES, NO)
        score_batch(model, batch)
        given.append(len(batch.packs[0].tokens))
        assert lengths.pop() == given[-1]
        with torch.autocast("cpu", torch.bfloat16):
            score_batch(model, batch)
    assert len(set(lengths)) < len(set(given)) / 3 + 3
    assert all(n <= padded <= n * (1 + 1 / tree_forward.ROUNDED) for n, padded in zip(given, lengths, strict=True))


@pytest.mark.parametrize("backend", WAYS)
def test_weights_of_32_bits_compute_in_16_where_that_is_wanted(model, backend):
    use_tree_attention(model.float())
    batch = TreeBatch.collate([random_tree(1), random_tree(2)], YES, NO, max_tokens=30)
    expected = score_batch(model, batch, backend).log_odds
    with torch.autocast("cpu", torch.bfloat16):
        found = score_batch(model, batch, backend).log_odds
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)
    assert not torch.equal(found, expected)


def test_five_hundred_branches_go_in_packs_of_bounded_size(model):
    use_tree_attention(model)
    tree = random_tree(5, n=512, prefix=50)
    batch = collated([tree], max_tokens=400)
    assert max(len(pack.tokens) for pack in batch.packs) <= 400
    assert sum(len(pack.tokens) for pack in batch.packs) == 50 + sum(len(b.tokens) for b in tree.branches)
    parts, whole = score_batch(model, batch), score_batch(model, collated([tree]))
    torch.testing.assert_close(parts.log_odds, whole.log_odds, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(parts.log_likelihood, whole.log_likelihood, rtol=1e-6, atol=1e-8)


def other_models(kind: str):
    common = {"vocab_size": 84, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48}
    common |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    if kind == "llama":
        return LlamaConfig(**common)
    return Qwen2Config(**common, use_sliding_window=True, sliding_window=6, max_window_layers=1)


@pytest.mark.parametrize("kind", ["llama", "sliding window"])
@pytest.mark.parametrize("max_tokens", [None, 40])
def test_other_architectures_and_sliding_windows_attend_as_they_do_in_separate_sequences(kind, max_tokens):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(other_models(kind), dtype=torch.float64).eval()
    plain = copy.deepcopy(model)
    use_tree_attention(model)
    scores = score_batch(model, collated(TREES[:2], max_tokens))
    expected = [separate_logits(plain, tree, i)[-1] for tree in TREES[:2] for i in range(len(tree.branches))]
    log_odds = torch.stack([logits[YES] - logits[NO] for logits in expected])
    torch.testing.assert_close(scores.log_odds, log_odds, rtol=1e-6, atol=1e-7)


def test_without_packs_the_attention_is_the_librarys_own_padding_included(model):
    plain = copy.deepcopy(model)
    use_tree_attention(model)
    ids, mask = torch.randint(84, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[0, :4] = mask[1, :2] = 0
    ours, theirs = (m(input_ids=ids, attention_mask=mask).logits for m in (model, plain))
    torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("max_tokens", [None, 2 * BLOCK])
def test_blocks_are_those_of_the_whole_mask(max_tokens):
    rng = np.random.default_rng(0)
    trees = [random_tree(i, n=int(rng.integers(1, 9)), prefix=int(rng.integers(5, 300)), longest=90) for i in range(6)]
    batch = collated(trees, max_tokens)
    for pack in batch.packs:
        packed = packed_attention(pack, "mask")
        n = len(pack.tokens)
        if n % BLOCK == 0 or packed.n_cached == 0:
            n -= n % BLOCK
        else:
            continue
        if n == 0:
            continue
        mask = packed.mask()[:n, : packed.n_cached + n]
        ours = block_mask(packed.keys_visible_until[: packed.n_cached + n], packed.n_cached, n)
        theirs = create_block_mask(lambda b, h, q, k, mask=mask: mask[q, k], None, None, n, mask.shape[1], device="cpu")
        for name in ("kv_num_blocks", "full_kv_num_blocks"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
        assert (ours.to_dense() == theirs.to_dense()).all()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("backend", "max_tokens", "options"),
    [
        ("cascade", None, {}),
        ("blocks", None, {}),
        ("blocks", 200, {}),
        ("mask", None, {}),
        ("cascade", 200, {}),
        ("cascade", 1, {}),
        ("blocks", 200, {"padded": True}),
        ("mask", None, {"padded": True}),
        ("cascade", 200, {"gradient_checkpointing": True}),
        ("cascade", 200, {"compile": True}),
    ],
)
def test_loss_and_every_gradient_are_those_of_separate_sequences(
    model, lora, backend, max_tokens, options, monkeypatch
):
    if "padded" in options:
        monkeypatch.setattr(tree_forward, "_multiple", lambda n, decoder: 29)
        options = {}
    if "compile" in options and (shutil.which("g++") is None or lora):
        pytest.skip("compiling on a CPU needs g++, and is tried once")
    if "compile" in options:  # each layer is compiled by itself, for some ten seconds
        model = new_model(replace(SIZE, layers=1), compact_tokenizer()).double()
    weights = {"verify-output-from-examples": 2.0}
    arc = ArcModel(scratch=SIZE, loss_weights=weights, attention=backend, **options).double()
    arc.log = arc.log_dict = lambda *_, **__: None
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).double()
        arc.lora = object()
    plain = copy.deepcopy(model)
    arc.model = model
    arc.prepare(arc.causal_lm)
    arc.train()
    loss = arc.training_step(collated(TREES, max_tokens, training=True), 0)
    (loss / 4).backward()  # as where gradients are accumulated
    ours = {name: 4 * p.grad for name, p in model.named_parameters() if p.grad is not None}
    expected = loss_of_sequences(plain, TREES, weights)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    expected.backward()
    theirs = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        # Qwen2's normalisation computes in float32 whatever the model's type, hence 1e-6 and not 1e-15.
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has a backward pass on a GPU only")
@pytest.mark.parametrize("max_tokens", [None, 200])
@pytest.mark.parametrize("width", [8, 64])  # FlexAttention takes no heads as narrow as the first
def test_loss_and_gradients_on_a_gpu_are_those_of_the_cpu(width, max_tokens):
    steps, size = {}, Scratch(hidden_size=4 * width, layers=2, heads=4, kv_heads=2, intermediate_size=96)
    model = new_model(size, compact_tokenizer())
    for device, backend in (("cpu", "cascade"), ("cuda", "flex")):
        arc = ArcModel(scratch=size, attention=backend)
        arc.log = lambda *_, **__: None
        arc.model = copy.deepcopy(model)
        arc.prepare(arc.model)
        loss = arc.to(device).training_step(collated(TREES, max_tokens, training=True).to(device), 0)
        loss.backward()
        steps[backend] = loss.cpu(), [p.grad.cpu() for p in arc.trained]
    torch.testing.assert_close(steps["flex"], steps["cascade"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("max_tokens", [None, 60])
def test_scores_are_sums_over_separate_sequences(model, max_tokens):
    plain = copy.deepcopy(model)
    use_tree_attention(model)
    scores = score_batch(model, collated(TREES, max_tokens))
    number = 0
    for tree in TREES:
        for i, branch in enumerate(tree.branches):
            log_probs = separate_logits(plain, tree, i)[len(tree.prefix) :].log_softmax(-1)
            judged = branch.kinds == PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES
            written = np.flatnonzero((branch.targets != IGNORE) & ~judged)
            expected = sum(float(log_probs[j, branch.targets[j]].detach()) for j in written)
            assert float(scores.log_likelihood[number]) == pytest.approx(expected, abs=1e-6)
            assert int(scores.written[number]) == len(written)
            hits = sum(int(log_probs[j].argmax()) == branch.targets[j] for j in written)
            assert int(scores.hits[number]) == hits
            if judged.any():
                log_odds = float((log_probs[-1, YES] - log_probs[-1, NO]).detach())
                assert float(scores.log_odds[number]) == pytest.approx(log_odds, abs=1e-6)
                assert scores.choices[number].isnan().all()
            else:
                torch.testing.assert_close(scores.choices[number], log_probs[-1, CHOICES], rtol=1e-6, atol=1e-6)
                assert scores.log_odds[number].isnan()
            number += 1


def test_a_fingerprint_depends_on_weights_and_not_on_precision(model):
    names = {fingerprint(model), fingerprint(model.float()), fingerprint(model.bfloat16())}
    assert len(names) == 1
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    assert fingerprint(model) not in names


@pytest.mark.parametrize("max_tokens", [None, 200])
def test_a_training_step_never_waits_for_a_number(model, max_tokens):
    # on this device there are no numbers, so that asking for one is an error
    arc = ArcModel(scratch=SIZE, attention="mask")
    arc.log = lambda *_, **__: None
    arc.model = model.float()
    arc.prepare(arc.model)
    batch = collated(TREES, max_tokens, training=True)
    loss = arc.to("meta").training_step(batch.to("meta"), 0)
    loss.backward()
    assert loss.is_meta and all(p.grad is not None for p in arc.trained)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes FlexAttention")
def test_without_the_private_operators_of_torch_packs_attend_by_a_mask(model, monkeypatch):
    for module in (blocks, cascade):
        monkeypatch.setattr(module, "SUPPORTED", False)
    for name in ("_forward", "_backward"):
        monkeypatch.setattr(cascade, name, None)
    plain = copy.deepcopy(model)
    use_tree_attention(model)
    check_hidden_states(model, plain, TREES, None, "auto")
