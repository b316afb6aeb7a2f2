"""Prompts by whole turns: the ids of the whole text, for tokenizers whose pieces do not add up or join digits."""

import os
import pickle
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lightning_arc.arc.grid import as_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.errors import DataError
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS, SELECT
from lightning_arc.prompt.tree import IGNORE
from lightning_arc.prompt.turns import TurnTokenizer
from lightning_arc.prompt.vocabulary import prompt_vocabulary

SPECIAL = ["<|im_start|>", "<|im_end|>"]
WITHOUT_DIGITS = "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder()))"
A, B, C, D = (as_grid([[i, i + 1]]) for i in range(4))
ANSWERS = (LabeledCandidate(A, False, 7), LabeledCandidate(D, True, 3))
EPISODE = Episode(
    PairKey("a", "test", 0), (Pair(A, B), Pair(B, C), Pair(D, A)), C, D, ANSWERS, "def f(g):\n    return g\n"
)
ENCODERS = (
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "MinimalGridEncoder()",
    "GridCodeBlockEncoder(RepeatNumberEncoder(2))",
    "RowNumberEncoder(GridWithSeparationEncoder(' '))",
    "GridWithSeparationEncoder('a')",
    WITHOUT_DIGITS,
    "GridShapeEncoder(ReplaceNumberEncoder(symbols='零一二三四五六七八九'))",
)
VERIFY_V1 = "verify-output-from-examples-v1"


@pytest.fixture(scope="session")
def smollm() -> PreTrainedTokenizerBase:
    """SmolLM2's real tokenizer."""
    folder = os.environ.get("ARC_SMOLLM")
    if folder is None:
        pytest.skip("ARC_SMOLLM: set it to a folder with SmolLM2's tokenizer")
    return AutoTokenizer.from_pretrained(folder)


def assert_ids_of_whole_texts(prompt_encoder: PromptEncoder, episode: Episode, prompt: str, learn: bool) -> None:
    """Check that each branch has the ids of its whole text, and the targets that it must have."""
    tree = prompt_encoder.tree(episode, prompt, learn_demonstrations=learn)
    tokenizer = prompt_encoder.tokenizer
    for i, branch in enumerate(tree.branches):
        whole = tokenizer(prompt_encoder.text(episode, prompt, i), add_special_tokens=False).input_ids
        assert tree.sequence(i).tolist() == whole
        assert branch.tokens[0] == tree.branches[0].tokens[0]
        inner = branch.targets[:-1]
        assert (inner == branch.tokens[1:])[inner != IGNORE].all()
        assert (branch.weights[branch.targets == IGNORE] == 0).all()
        written = branch.targets[branch.kinds == PROMPTS[prompt]] if prompt == "output-from-examples-v1" else None
        if written is not None:
            assert (
                tokenizer.decode(written)
                == prompt_encoder.grid_encoder.encode(episode.output) + prompt_encoder.template.end
            )
    following = np.append(tree.prefix[1:], tree.branches[0].tokens[0])
    assert (tree.prefix_targets == following)[tree.prefix_targets != IGNORE].all()


SNIPPETS = st.sampled_from(
    ["0", "12", "\n", "\n\n", " ", "  ", "```", "x", ".", "é", "０", "字", *SPECIAL, "user\n", "# Test"]
)
TEXTS = st.one_of(st.lists(SNIPPETS, max_size=25).map("".join), st.text(max_size=20))


@pytest.mark.parametrize("name", ["smollm", "llama", "greedy"])
@given(text=TEXTS)
@example(text="")
@example(text="<|im_start|> \n<|im_end|>\n\n<|im_end|>")
def test_turns_of_any_text_give_the_ids_of_the_whole_text(small_tokenizer, name, text):
    tokenizer = small_tokenizer(name)
    ids, (stop,) = TurnTokenizer(tokenizer).encode(text, [len(text)])
    assert ids.tolist() == tokenizer(text, add_special_tokens=False).input_ids
    assert stop == len(ids)


@given(text=TEXTS)
def test_turns_of_any_text_give_smollms_ids_of_the_whole_text(smollm, text):
    assert TurnTokenizer(smollm).encode(text)[0].tolist() == smollm(text, add_special_tokens=False).input_ids


@pytest.fixture(scope="module")
def chats(small_tokenizer):
    """A function that gives the prompter of a small tokenizer with a grid encoder."""
    return cache(lambda name, encoder=None: PromptEncoder(small_tokenizer(name), encoder))


@given(data=st.data(), prompt=st.sampled_from(sorted(PROMPTS)), learn=st.booleans())
def test_trees_by_turns_have_the_ids_of_their_whole_texts(chats, episodes, data, prompt, learn):
    prompt_encoder = chats("smollm", data.draw(st.sampled_from(ENCODERS)))
    assert prompt_encoder.by_turns
    assert_ids_of_whole_texts(prompt_encoder, data.draw(episodes(6)), prompt, learn)


def test_trees_by_turns_have_smollms_ids_of_their_whole_texts(smollm, episodes):
    made = cache(lambda encoder: PromptEncoder(smollm, encoder))

    @settings(max_examples=30)
    @given(data=st.data(), prompt=st.sampled_from(sorted(PROMPTS)), learn=st.booleans())
    def check(data, prompt, learn):
        prompt_encoder = made(data.draw(st.sampled_from(ENCODERS)))
        assert prompt_encoder.by_turns
        assert_ids_of_whole_texts(prompt_encoder, data.draw(episodes(6)), prompt, learn)

    check()


@given(data=st.data(), prompt=st.sampled_from(sorted(PROMPTS)), learn=st.booleans())
def test_a_tokenizer_that_joins_digits_takes_encoders_that_write_cells_without(chats, episodes, data, prompt, learn):
    encoder = data.draw(st.sampled_from([WITHOUT_DIGITS, "ReplaceNumberEncoder()", "GridWithSeparationEncoder(' ')"]))
    assert_ids_of_whole_texts(chats("llama", encoder), data.draw(episodes(6)), prompt, learn)


@pytest.mark.parametrize("encoder", [None, "MinimalGridEncoder()", "GridCodeBlockEncoder(MinimalGridEncoder())"])
def test_a_tokenizer_that_joins_cells_is_refused_with_the_remedy(small_tokenizer, encoder):
    with pytest.raises(
        DataError, match=r"^llama: the tokenizer joins cells .*data.grid_encoder: GridShapeEncoder"
    ) as error:
        PromptEncoder(small_tokenizer("llama"), encoder)
    assert len(str(error.value).splitlines()) == 1
    assert PromptEncoder(small_tokenizer("llama"), WITHOUT_DIGITS).by_turns


def test_qwen_is_tokenized_from_pieces_as_before(qwen, nestings):
    assert not any(PromptEncoder(qwen, nesting).by_turns for nesting in nestings)


def test_selections_by_turns_share_a_prefix_and_have_the_ids_of_their_whole_texts(chats):
    prompt_encoder = chats("smollm")
    orders = [(0, 1), (1, 0)]
    tree = prompt_encoder.selections(EPISODE, orders)
    rendered = prompt_encoder.template.selections(EPISODE, orders)
    for i in range(2):
        whole = prompt_encoder.tokenizer(prompt_encoder.template.text(rendered, i), add_special_tokens=False).input_ids
        assert tree.sequence(i).tolist() == whole
        assert tree.branches[i].targets[-1] == prompt_encoder.choice_ids[1 - i]
    assert len(tree.prefix) > len(tree.branches[0].tokens)


def test_an_answer_by_turns_goes_on_from_its_opening_and_is_read_back(chats, grids):
    prompt_encoder = chats("smollm")

    @settings(max_examples=30)
    @given(grid=grids(12))
    def check(grid):
        opening, written = prompt_encoder.opening(EPISODE), prompt_encoder.write(grid)
        text = prompt_encoder.template.text_of(
            prompt_encoder.template.examples(EPISODE, "write")
        ) + prompt_encoder.grid_encoder.encode(grid)
        ids = prompt_encoder.tokenizer(text + prompt_encoder.template.end, add_special_tokens=False).input_ids
        assert [*opening, *written, prompt_encoder.end_id] == ids
        assert (prompt_encoder.read(written) == grid).all()

    check()


def test_a_branch_that_only_writes_is_the_beginning_of_one_that_is_judged(chats):
    prompt_encoder = chats("smollm")
    written = prompt_encoder.tree(EPISODE, "output-from-examples-v1").sequence(0).tolist()
    judged = prompt_encoder.tree(EPISODE, VERIFY_V1).sequence(1).tolist()
    assert judged[: len(written)] == written


def test_a_grammar_of_a_tokenizer_by_turns_follows_what_is_written(chats):
    prompt_encoder = chats("smollm")
    assert prompt_encoder.by_turns
    grammar = Grammar(prompt_encoder)
    grid = as_grid([[1, 2, 3], [4, 5, 6]])
    tokens = [*prompt_encoder.write(grid), prompt_encoder.end_id]
    shapes, before = grammar.start(1, 200), np.array([-1])
    for place, token in enumerate(tokens):
        assert grammar.allowed(place, shapes, before, 2000)[0, token]
        shapes = grammar.advance(place, shapes, before, np.array([token]))
        before = np.array([token])
    assert shapes.sum() == 1


def test_cells_of_several_tokens_leave_the_grammar_out_with_one_line(small_tokenizer):
    prompt_encoder = PromptEncoder(small_tokenizer("smollm"), "ReplaceNumberEncoder(symbols='零一二三四五六七八九')")
    with pytest.raises(DataError, match=r"model.decoding.constrained: .*in several tokens, set it to false"):
        Grammar(prompt_encoder)


def test_a_trimmed_vocabulary_holds_what_prompts_by_turns_are_made_of(chats):
    whole = chats("smollm")
    kept = prompt_vocabulary(whole)
    trimmed = PromptEncoder(whole.tokenizer, None, kept)
    for prompt, kind in PROMPTS.items():
        if kind not in FROM_CODE:
            for i in range(len(whole.tree(EPISODE, prompt).branches)):
                expected = whole.tree(EPISODE, prompt).sequence(i)
                assert (kept[trimmed.tree(EPISODE, prompt).sequence(i)] == expected).all()
    assert len(kept) < 200
    assert kept[trimmed.end_id] == whole.end_id


def test_a_prompter_by_turns_goes_to_worker_processes(chats):
    prompt_encoder = chats("smollm")
    again = pickle.loads(pickle.dumps(prompt_encoder))
    for prompt in (VERIFY_V1, SELECT):
        assert (
            again.tree(EPISODE, prompt).sequence(0).tolist()
            == prompt_encoder.tree(EPISODE, prompt).sequence(0).tolist()
        )


def test_a_normalizer_that_joins_symbols_is_refused_and_not_read_back_as_another_grid(small_tokenizer):
    with pytest.raises(DataError, match=r"^lower: "):
        PromptEncoder(small_tokenizer("lower"), "ReplaceNumberEncoder(symbols='ABCDEFGHIJ')")
