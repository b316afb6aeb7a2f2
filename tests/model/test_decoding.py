"""Decoding: what is written has the probabilities that the model gives it, and is all that it should be."""

import copy
import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.cache_utils import Cache

from lightning_arc.arc import Episode, LabeledCandidate, Pair, PairKey, as_grid
from lightning_arc.data.batch import TreeBatch
from lightning_arc.errors import DataError
from lightning_arc.model.attention.shared_prefix import PrefixedAttention, PromptKeys, WrittenLayer
from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.decoding import Decoding, NotFiniteError, Opening, generate
from lightning_arc.model.load import Scratch, load_base, new_model
from lightning_arc.model.scoring import score_batch
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.grid_encoders import DecodeError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer

SIZE = Scratch(hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48)
GRID = as_grid([[1, 2], [3, 4]])
EPISODE = Episode(PairKey("t", "test", 0), (Pair(GRID, GRID.T), Pair(GRID.T, GRID)), GRID, None)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return prepared(new_model(SIZE, compact_tokenizer()).double().eval())


def prepared(model):
    use_tree_attention(model)
    return model


@pytest.fixture(scope="module")
def prompt_encoder():
    return PromptEncoder(compact_tokenizer())


def likelihoods(model, prompt_encoder, grids):
    """The plain way: every grid's log-likelihood as the scoring of candidates gives it."""
    answers = tuple(LabeledCandidate(grid, None, i) for i, grid in enumerate(grids))
    episode = Episode(EPISODE.key, EPISODE.demonstrations, EPISODE.query, None, answers)
    tree = prompt_encoder.tree(episode, "verify-output-from-examples-v1")
    use_tree_attention(model)
    return score_batch(
        model, TreeBatch.collate([tree], prompt_encoder.yes_id, prompt_encoder.no_id)
    ).log_likelihood.tolist()


def written_for(model, prompt_encoder, decoding, grammar=None, room=200, seed=0):
    prompt = torch.from_numpy(prompt_encoder.opening(EPISODE).astype(np.int64))
    return generate(prepared(model), [Opening(prompt, prompt_encoder.end_id, room, seed)], decoding, grammar)[0]


def decoded(prompt_encoder, written):
    return prompt_encoder.grid_encoder.decode(prompt_encoder.tokenizer.decode(written.tokens))


@pytest.mark.parametrize("name", ["bundled", "qwen", "sliding window"])
def test_answers_have_the_likelihood_that_candidates_are_scored_with(name, request):
    if name == "bundled":
        model, prompt_encoder = load_base("bundled", torch.float64), PromptEncoder(load_tokenizer("bundled"))
    elif name == "sliding window":
        tokenizer = compact_tokenizer()
        config = Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True, sliding_window=6,
            max_window_layers=1,
        )  # fmt: skip
        torch.manual_seed(0)
        model, prompt_encoder = AutoModelForCausalLM.from_config(config).double(), PromptEncoder(tokenizer)
    else:
        folder = request.getfixturevalue("qwen_folder")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        prompt_encoder = PromptEncoder(AutoTokenizer.from_pretrained(folder))
    decoding = Decoding(n_samples=5, min_probability=0.05)
    written, n_tokens = written_for(model.eval(), prompt_encoder, decoding, Grammar(prompt_encoder), room=90)
    assert sum(w.count for w in written) <= 5 and n_tokens > len(prompt_encoder.opening(EPISODE))
    assert written
    expected = likelihoods(model, prompt_encoder, [decoded(prompt_encoder, w) for w in written])
    assert [w.log_likelihood for w in written] == pytest.approx(expected, abs=1e-8)
    searched = [w for w in written if w.count == 0]
    assert all(w.log_likelihood > math.log(0.05) for w in searched)


def all_likely(model, prompt, end_id, room, least):
    """The plain way: every sequence within the room whose probability, end included, is greater; one at a time."""
    found, waiting = {}, [((), 0.0)]
    while waiting:
        tokens, total = waiting.pop()
        ids = torch.cat([prompt, torch.tensor(tokens, dtype=torch.int64)])[None]
        with torch.no_grad():
            log_probs = torch.log_softmax(model(input_ids=ids).logits[0, -1], -1)
        for token, log_prob in enumerate(log_probs.tolist()):
            if total + log_prob > math.log(least):
                if token == end_id:
                    found[tokens] = total + log_prob
                elif len(tokens) + 1 < room:
                    waiting.append(((*tokens, token), total + log_prob))
    return found


@pytest.mark.parametrize("least", [0.004, 0.0005])
def test_the_search_finds_exactly_what_is_likely_enough(tiny, least):
    sharp = new_model(SIZE, compact_tokenizer()).double().eval()
    sharp.load_state_dict(tiny.state_dict())
    with torch.no_grad():
        sharp.get_output_embeddings().weight *= 12  # so that some sequences are likely
    prompt, end_id = torch.arange(7), int(sharp(input_ids=torch.arange(7)[None]).logits[0, -1].topk(3).indices[2])
    expected = all_likely(sharp, prompt, end_id, 4, least)
    decoding = Decoding(0, min_probability=least, constrained=False)
    written, _ = generate(prepared(sharp), [Opening(prompt, end_id, 4, 0)], decoding, None)[0]
    assert len(expected) > 2
    assert {tuple(w.tokens.tolist()): w.log_likelihood for w in written} == pytest.approx(expected, abs=1e-9)
    assert len(written) == len(expected)


def test_samples_are_as_frequent_as_their_probability(tiny):
    prompt, n = torch.arange(7), 4000
    with torch.no_grad():
        probabilities = torch.softmax(tiny(input_ids=prompt[None]).logits[0, -1] / 0.5, -1).numpy()
    end_id = int(probabilities.argmax())
    decoding = Decoding(n, temperature=0.5, constrained=False)
    written, _ = generate(tiny, [Opening(prompt, end_id, 2, 0)], decoding, None)[0]
    ended_at_once = sum(w.count for w in written if len(w.tokens) == 0)
    p = probabilities[end_id]
    assert abs(ended_at_once - n * p) < 5 * math.sqrt(n * p * (1 - p))
    firsts = Counter()
    for w in written:
        firsts[int(w.tokens[0]) if len(w.tokens) else end_id] += w.count
    with torch.no_grad():
        for token in probabilities.argsort()[-4:-1].tolist():
            after = torch.softmax(
                tiny(input_ids=torch.cat([prompt, torch.tensor([token])])[None]).logits[0, -1] / 0.5, -1
            )
            p = float(probabilities[token] * after[end_id])
            assert abs(firsts[token] - n * p) < 5 * math.sqrt(n * p * (1 - p)) + 1


def test_only_the_likeliest_tokens_are_sampled_from_with_top_p(tiny):
    prompt = torch.arange(7)
    with torch.no_grad():
        probabilities = torch.softmax(tiny(input_ids=prompt[None]).logits[0, -1], -1).sort(descending=True)
    nucleus = probabilities.indices[: int((probabilities.values.cumsum(0) < 0.3).sum()) + 1].tolist()
    seen, narrow = set(), Decoding(2000, top_p=0.3, constrained=False)
    for end_id in nucleus:
        written, _ = generate(tiny, [Opening(prompt, end_id, 1, 0)], narrow, None)[0]
        assert sum(w.count for w in written) > 0
        seen.add(end_id)
    outside = int(probabilities.indices[len(nucleus)])
    [(written, _)] = generate(tiny, [Opening(prompt, outside, 1, 0)], narrow, None)
    assert written == []
    assert seen == set(nucleus)


def test_constrained_answers_are_grids_that_fit_in_the_room(tiny, prompt_encoder):
    grammar = Grammar(prompt_encoder)
    written, _ = written_for(tiny, prompt_encoder, Decoding(40), grammar, room=30)
    assert sum(w.count for w in written) == 40
    for w in written:
        assert decoded(prompt_encoder, w).size and len(w.tokens) < 30
    free, _ = written_for(tiny, prompt_encoder, Decoding(40, constrained=False), None, room=30)
    grids = 0
    for w in free:
        try:
            decoded(prompt_encoder, w)
            grids += 1
        except DecodeError:
            pass
    assert grids == 0  # a model with random weights writes none of itself
    assert written_for(tiny, prompt_encoder, Decoding(4), grammar, room=3) == ([], 0)


def test_the_same_seed_gives_the_same_answers_in_any_number_of_rounds(tiny, prompt_encoder):
    def answers(seed, **options):
        written, _ = written_for(
            tiny, prompt_encoder, Decoding(6, **options), Grammar(prompt_encoder), room=40, seed=seed
        )
        return [(w.tokens.tolist(), w.count) for w in written]

    assert answers(3) == answers(3) != answers(4)
    in_rounds = answers(0, max_tokens=150)
    assert sum(count for _, count in in_rounds) == 6


@torch.no_grad()
def test_rows_of_several_prompts_have_the_hidden_states_of_separate_sequences(tiny):
    decoder, prompts = tiny.get_decoder(), [torch.randint(80, (n,)) for n in (9, 4, 12)]
    keys, cache = [PromptKeys() for _ in prompts], Cache(layers=[WrittenLayer(6) for _ in range(SIZE.layers)])
    for prompt, own in zip(prompts, keys, strict=True):
        hidden = decoder(input_ids=prompt[None], use_cache=False, packed=own).last_hidden_state
        torch.testing.assert_close(hidden, decoder(input_ids=prompt[None]).last_hidden_state)
    rows = [(i, []) for i in range(3)]
    for selected in ([0, 0, 0, 1, 2, 2], [0, 2, 4], [0, 0, 1, 2, 2, 2], [1, 3], [0, 1, 1]):
        rows = [(rows[i][0], [*rows[i][1], int(torch.randint(80, ()))]) for i in selected]
        for layer in cache.layers:
            layer.select(torch.tensor(selected))
        present = sorted(Counter(number for number, _ in rows).items())
        hidden = decoder(
            input_ids=torch.tensor([tokens[-1:] for _, tokens in rows]),
            position_ids=torch.tensor([[len(prompts[number]) + len(tokens) - 1] for number, tokens in rows]),
            attention_mask=torch.zeros((1, 1, 1, 1), dtype=torch.bool),
            past_key_values=cache,
            use_cache=True,
            packed=PrefixedAttention([keys[i] for i, _ in present], [n for _, n in present]),
        ).last_hidden_state[:, -1]
        for state, (number, tokens) in zip(hidden, rows, strict=True):
            whole = torch.cat([prompts[number], torch.tensor(tokens)])[None]
            plain = decoder(input_ids=whole).last_hidden_state[0, -1]
            torch.testing.assert_close(state, plain, rtol=1e-10, atol=1e-10)


def test_prompts_that_are_answered_together_have_the_answers_of_each_alone(tiny, prompt_encoder):
    grammar, openings = Grammar(prompt_encoder), []
    for seed, room in ((1, 40), (2, 3), (3, 60), (4, 25)):
        prompt = torch.from_numpy(prompt_encoder.opening(EPISODE).astype(np.int64))[seed:]
        openings.append(Opening(prompt, prompt_encoder.end_id, room, seed))
    decoding = Decoding(6, min_probability=0.001)
    together = generate(tiny, openings, decoding, grammar)
    assert together[1] == ([], 0)  # no grid is that short
    for opening, (written, n_tokens) in zip(openings, together, strict=True):
        [(alone, n_alone)] = generate(tiny, [opening], decoding, grammar)
        assert n_tokens == n_alone and len(written) == len(alone)
        for found, expected in zip(written, alone, strict=True):
            assert found.tokens.tolist() == expected.tokens.tolist() and found.count == expected.count
            assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-9)


def test_an_error_about_what_is_not_finite_names_its_prompt(tiny, prompt_encoder):
    model = copy.deepcopy(tiny)
    embedding = copy.deepcopy(model.get_input_embeddings())  # apart from the head
    with torch.no_grad():
        embedding.weight[79] = torch.nan
    model.set_input_embeddings(embedding)
    openings = [Opening(torch.tensor(ids), prompt_encoder.end_id, 20, 0) for ids in ([1, 2], [1, 79])]
    with pytest.raises(NotFiniteError) as error:
        generate(model, openings, Decoding(2, constrained=False), None)
    assert error.value.number == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"n_samples": 0},
        {"n_samples": -1, "min_probability": 0.1},
        {"temperature": 0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_probability": 1.0},
        {"max_tokens": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(DataError, match="model.decoding"):
        Decoding(**settings)


def test_every_shape_is_a_path_of_the_grammar_and_nothing_else(prompt_encoder):
    grammar = Grammar(prompt_encoder)
    rng = np.random.default_rng(0)
    for height, width in itertools.chain([(1, 1), (30, 30), (1, 30), (30, 1)], rng.integers(1, 31, (8, 2)).tolist()):
        grid = as_grid(rng.integers(10, size=(height, width)))
        tokens = [*prompt_encoder.write(grid).tolist(), prompt_encoder.end_id]
        shapes, before = grammar.start(1, 10_000), np.array([-1])
        for place, token in enumerate(tokens):
            allowed = grammar.allowed(place, shapes, before, 200)
            assert allowed[0, token]
            wrong = np.flatnonzero(~allowed[0])
            assert not grammar.advance(place, shapes, before, np.array([wrong[rng.integers(len(wrong))]])).any()
            shapes, before = grammar.advance(place, shapes, before, np.array([token])), np.array([token])
        assert shapes.sum() == 1
