"""Other architectures: each has on packs the logits of its own forward pass, or is refused when it is loaded."""

import copy

import numpy as np
import pytest
import torch

from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.attention.proof import LOW_PRECISION, check_positions, difference, proved
from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.decoding import Decoding, Opening, generate
from lightning_arc.model.scoring import score_batch
from lightning_arc.prompt.tree import IGNORE

from .architectures import tiny
from .helpers import NO, TREES, YES, collated, loss_of_sequences, random_tree, separate_logits

DENSE = ["llama", "qwen2", "qwen3", "mistral", "phi3", "granite", "cohere", "cohere2", "gemma3_text", "olmo2", "glm4"]
WORKS = [*DENSE, "deepseek_v3", "qwen3_moe"]
REFUSED = {
    "gemma2": "Gemma2ForCausalLM: Gemma2Attention hands softcap to its attention, which is not supported",
    "gpt_oss": "GptOssForCausalLM: GptOssAttention hands s_aux to its attention, which is not supported",
    "mamba": r"MambaForCausalLM: several prompts cannot be run .* \(its layers: linear_attention\): ",
    "qwen3_next": r"Qwen3NextForCausalLM: several prompts .* \(its layers: full_attention, linear_attention\): ",
    "lfm2": r"Lfm2ForCausalLM: several prompts cannot be run .* \(its layers: conv, full_attention\): ",
    "mpt": r"MptForCausalLM: .* \(its layers take no other attention .*: logits differ by [\d.]+% of their spread",
}


def prepared(model):
    with proved(model):
        use_tree_attention(model)
    return model


@pytest.mark.parametrize("max_tokens", [None, 40])
@pytest.mark.parametrize("kind", WORKS)
def test_scores_are_those_of_the_models_own_forward_pass(kind, max_tokens):
    plain = tiny(kind)
    scores = score_batch(prepared(copy.deepcopy(plain)), collated(TREES[:2], max_tokens))
    number = 0
    for tree in TREES[:2]:
        for i, branch in enumerate(tree.branches):
            logits = separate_logits(plain, tree, i).detach().double()
            log_odds = float(logits[-1, YES] - logits[-1, NO])
            assert float(scores.log_odds[number]) == pytest.approx(log_odds, abs=1e-4)
            log_probs, targets = logits[len(tree.prefix) :].log_softmax(-1), branch.targets
            written = sum(float(log_probs[j, targets[j]]) for j in range(len(targets) - 1) if targets[j] != IGNORE)
            assert float(scores.log_likelihood[number]) == pytest.approx(written, abs=1e-3)
            number += 1


@pytest.mark.parametrize("kind", WORKS)
def test_written_answers_have_the_likelihood_of_the_models_own_forward_pass(kind):
    plain = tiny(kind)
    prompt = torch.from_numpy(random_tree(0).prefix).long()
    decoding = Decoding(n_samples=6, temperature=2)
    [(answers, _)] = generate(prepared(copy.deepcopy(plain)), [Opening(prompt, 2, 60, 0)], decoding, None)
    assert answers
    for answer in answers:
        ids = torch.cat([prompt, torch.from_numpy(answer.tokens), torch.tensor([2])])
        log_probs = plain(input_ids=ids[None]).logits[0].detach().double().log_softmax(-1)
        expected = sum(float(log_probs[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))
        assert answer.log_likelihood == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("kind", ["granite", "cohere", "gemma3_text"])
def test_loss_and_every_gradient_go_through_scales_and_caps_of_logits(kind):
    model = tiny(kind, torch.float64)
    plain = copy.deepcopy(model)
    arc = ArcModel()
    arc.log = lambda *_, **__: None
    arc.model = model
    arc.prepare(model)
    loss = arc.training_step(collated(TREES, 200, training=True), 0)
    loss.backward()
    expected = loss_of_sequences(plain, TREES, {})
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_packs_would_change_is_refused_with_its_reason(kind):
    with pytest.raises(DataError, match=f"^{REFUSED[kind]}") as error:
        prepared(tiny(kind))
    assert len(str(error.value)) < 300


def test_a_refused_model_is_named_by_its_folder_when_it_is_loaded(tmp_path):
    tiny("gemma2").save_pretrained(tmp_path)
    with pytest.raises(DataError, match=f"^{tmp_path}: Gemma2ForCausalLM: .* softcap"):
        ArcModel(model_path=str(tmp_path)).build()


@pytest.mark.parametrize("kind", DENSE)
def test_rounding_to_16_bits_is_no_reason_to_refuse(kind):
    prepared(tiny(kind, torch.bfloat16))


def test_a_window_longer_than_all_that_is_tried_is_tried_and_left_as_it_was():
    model = tiny("mistral", sliding_window=4096)
    prepared(model)
    assert model.config.sliding_window == 4096
    with pytest.raises(DataError, match="logits differ"), proved(model):
        model.config.sliding_window = None


def test_a_model_that_was_not_prepared_attends_to_whatever_comes_before_and_is_refused():
    with pytest.raises(DataError, match="logits differ"), proved(tiny("llama")):
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_that_are_changed_in_an_unknown_way_are_refused(dtype):
    model = tiny("llama", dtype)
    forward = model.forward

    def capped(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = torch.tanh(output.logits)
        return output

    model.forward = capped
    with pytest.raises(DataError, match="LlamaForCausalLM: changes its logits after its head"):
        prepared(model)


def test_keeping_some_tokens_is_proved_too():
    model, kept = tiny("gemma3_text"), np.arange(3, 60, 2, dtype=np.int32)
    plain = copy.deepcopy(model)
    arc = ArcModel()
    arc.kept = kept
    arc.prepare(model)
    places = torch.arange(12)[None]
    ids = torch.from_numpy(kept).long()
    torch.testing.assert_close(model(input_ids=places).logits, plain(input_ids=ids[places]).logits[..., ids])
    with pytest.raises(DataError, match="logits differ"), proved(plain, kept):
        use_tree_attention(plain)
        plain.set_input_embeddings(torch.nn.Embedding(len(kept), 32, _weight=plain.get_input_embeddings().weight[ids]))
        plain.set_output_embeddings(torch.nn.Linear(32, len(kept), bias=False))


def test_weights_that_are_not_finite_prove_nothing_about_an_architecture():
    model = tiny("llama")
    model.get_decoder().norm.weight.data[0] = torch.nan
    prepared(model)


def test_differences_are_shares_of_the_spread_and_those_of_most_tokens():
    expected = torch.randn(5, 30)
    assert difference(expected, expected) == 0
    one = expected.clone()
    one[0] = 9
    assert difference(one, expected) == 0
    assert difference(expected + expected.std(), expected) > LOW_PRECISION
    assert difference(expected * torch.nan, expected) == np.inf
    assert difference(expected, expected * torch.nan) == 0


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}


@pytest.mark.parametrize(
    ("kind", "rope", "settings"),
    [
        ("phi3", LONGROPE | {"original_max_position_embeddings": 64}, {"original_max_position_embeddings": 64}),
        ("llama", DYNAMIC, {"max_position_embeddings": 64}),
    ],
)
def test_lengths_at_which_a_model_changes_the_positions_of_other_prompts_are_refused(kind, rope, settings):
    plain = tiny(kind, rope_parameters=rope | {"rope_theta": 1e4}, **settings)
    check_positions(plain, 64)
    with pytest.raises(DataError, match=r"^data\.max_seq_len is 65, expected at most 64: .*ForCausalLM changes"):
        check_positions(plain, 65)
    model = prepared(copy.deepcopy(plain))
    short, other, long = random_tree(1, n=2), random_tree(3), random_tree(2, n=2, prefix=90)
    alone, beside_another, beside_a_long_one = (
        score_batch(model, collated(trees)).log_odds[:2] for trees in ([short], [short, other], [short, long])
    )
    torch.testing.assert_close(beside_another, alone, rtol=0, atol=1e-4)
    assert not torch.allclose(beside_a_long_one, alone, atol=1e-3)


@pytest.mark.parametrize("kind", ["qwen2", "gemma3_text"])
def test_positions_that_depend_on_nothing_else_have_no_bound(kind):
    check_positions(tiny(kind), 10**6)
