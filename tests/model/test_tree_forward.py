import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Qwen2Config

from lightning_arc.batch import TreeBatch, TreeTensors
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Scratch, fingerprint, new_qwen2
from lightning_arc.model.scoring import score_tree
from lightning_arc.model.tree_forward import (
    branch_chunks,
    branch_hidden,
    branch_mask,
    check_linear_head,
    prefix_cache,
    tree_hidden,
)
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.tree import IGNORE, Branch, Kind, TokenTree

SIZE = Scratch(hidden_size=32, layers=3, heads=4, kv_heads=2, intermediate_size=48)
YES, NO = 3, 4


def random_tree(seed, n=4, prefix=11):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(84, size=prefix).astype(np.int32)
    branches = []
    for i in range(n):
        own = rng.integers(84, size=int(rng.integers(3, 9))).astype(np.int32)
        targets = np.append(own[1:], YES if i == 0 else NO).astype(np.int32)
        targets[-2] = IGNORE
        kinds = np.full(len(own), Kind.OUTPUT_FROM_EXAMPLES, np.int8)
        kinds[-1] = Kind.VERIFY_OUTPUT_FROM_EXAMPLES
        weights = np.full(len(own), float(i == 0), np.float32)
        weights[-1] = 0.5 if i == 0 else 0.5 / (n - 1)
        branches.append(Branch(own, targets, kinds, weights, i, i == 0))
    prefix_targets = np.full(prefix, IGNORE, np.int32)
    prefix_targets[3:6] = tokens[4:7]
    return TokenTree(tokens, prefix_targets, tuple(branches))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return new_qwen2(SIZE, compact_tokenizer()).double()


def separate_logits(model, tree, i):
    ids = np.concatenate([tree.prefix, tree.branches[i].tokens])
    return model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0]


def test_branches_have_the_logits_of_separate_sequences(model):
    tree = random_tree(0)
    prefix, hidden = tree_hidden(model.get_decoder(), TreeTensors.from_tree(tree))
    head = model.get_output_embeddings()
    for i, branch in enumerate(tree.branches):
        logits = separate_logits(model, tree, i)
        torch.testing.assert_close(head(prefix), logits[: len(prefix)], rtol=1e-10, atol=1e-10)
        ours = head(hidden[i, : len(branch.tokens)])
        torch.testing.assert_close(ours, logits[len(prefix) :], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [None, 6])
def test_branches_attend_as_separate_sequences_do_in_models_with_a_sliding_window_too(attention, window):
    torch.manual_seed(0)
    config = Qwen2Config(
        **{"vocab_size": 84, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48},
        **{"num_attention_heads": 4, "num_key_value_heads": 2},
        **{"use_sliding_window": window is not None, "sliding_window": window, "max_window_layers": 1},
    )
    config._attn_implementation = attention
    decoder = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval().get_decoder()
    prefix, branches = torch.randint(84, (11,)), torch.randint(84, (3, 5))
    with torch.no_grad():
        _, cached = prefix_cache(decoder, prefix)
        assert (branch_mask(decoder, cached, branches) is None) == (window is not None)
        ours = branch_hidden(decoder, cached, branches)
        theirs = [decoder(input_ids=torch.cat([prefix, b])[None]).last_hidden_state[0, 11:] for b in branches]
    # eager attention makes its softmax in float32, hence 1e-6
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lora", [False, True])
def test_loss_and_every_gradient_are_those_of_separate_sequences(model, lora):
    arc = ArcModel(scratch=SIZE)
    arc.log = arc.log_dict = lambda *_, **__: None
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).double()
        arc.lora = object()
    arc.model = model
    trees = [random_tree(1), random_tree(2, n=2, prefix=5)]
    loss = arc.training_step(TreeBatch.collate(trees, YES, NO), 0)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = copy.deepcopy(model)
    plain.zero_grad()
    sums = {kind: [0.0, 0.0] for kind in (Kind.OUTPUT_FROM_EXAMPLES, Kind.VERIFY_OUTPUT_FROM_EXAMPLES)}
    for tree in trees:
        for i, branch in enumerate(tree.branches):
            logits = separate_logits(plain, tree, i)
            targets = torch.from_numpy(np.concatenate([tree.prefix_targets, branch.targets]).astype(np.int64))
            in_prefix = (tree.prefix_targets != IGNORE) * float(i == 0)
            weights = torch.from_numpy(np.concatenate([in_prefix, branch.weights]))
            kinds = torch.from_numpy(np.concatenate([np.zeros(len(tree.prefix)), branch.kinds]))
            losses = cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")
            for kind, total in sums.items():
                weight = weights * (kinds == kind) * (targets != IGNORE)
                total[0] = total[0] + (losses * weight).sum()
                total[1] = total[1] + weight.sum()
    expected = sum(loss / weight for loss, weight in sums.values())
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-7)
    expected.backward()
    theirs = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        # Qwen2's normalisation computes in float32 whatever the model's type, hence 1e-7 and not 1e-15.
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-5, atol=2e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_scores_are_sums_over_separate_sequences_however_branches_are_chunked(model):
    tree = random_tree(3, n=7)
    tensors = TreeTensors.from_tree(tree)
    whole = score_tree(model, tensors, YES, NO, max_tokens=10**6)
    chunked = score_tree(model, tensors, YES, NO, max_tokens=1)
    assert len(list(branch_chunks(tensors, 1))) == 7
    for i, branch in enumerate(tree.branches):
        log_probs = separate_logits(model, tree, i)[len(tree.prefix) :].log_softmax(-1)
        written = (branch.targets != IGNORE) & (branch.kinds == Kind.OUTPUT_FROM_EXAMPLES)
        expected = sum(float(log_probs[j, branch.targets[j]]) for j in np.flatnonzero(written))
        for scores in (whole, chunked):
            assert float(scores.log_likelihood[i]) == pytest.approx(expected, abs=1e-9)
            assert float(scores.log_odds[i]) == pytest.approx(float(log_probs[-1, YES] - log_probs[-1, NO]), abs=1e-9)
            assert int(scores.written[i]) == written.sum()


def test_a_fingerprint_tells_weights_apart_and_not_precisions(model):
    names = {fingerprint(model), fingerprint(model.float()), fingerprint(model.bfloat16())}
    assert len(names) == 1
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    assert fingerprint(model) not in names


def test_a_model_that_changes_its_logits_is_refused(model):
    check_linear_head(model)
    forward = model.forward

    def capped(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = 30 * torch.tanh(output.logits / 30) + 1
        return output

    model.forward = capped
    with pytest.raises(ValueError, match="changes its logits"):
        check_linear_head(model)
