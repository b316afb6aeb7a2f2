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
from lightning_arc.arc.task import Answer, Episode, Pair, PairKey
from lightning_arc.errors import DataError
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.layouts import FROM_CODE, PROMPTS, SELECT
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tree import IGNORE
from lightning_arc.prompt.turns import TurnTokenizer
from lightning_arc.prompt.vocabulary import prompt_vocabulary

SPECIAL = ["<|im_start|>", "<|im_end|>"]
WITHOUT_DIGITS = "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder()))"
A, B, C, D = (as_grid([[i, i + 1]]) for i in range(4))
ANSWERS = (Answer(A, False, 7), Answer(D, True, 3))
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


def assert_ids_of_whole_texts(prompter: Prompter, episode: Episode, prompt: str, learn: bool) -> None:
    """Check that each branch has the ids of its whole text, and the targets that it must have."""
    tree = prompter.tree(episode, prompt, learn_demonstrations=learn)
    tokenizer = prompter.tokenizer
    for i, branch in enumerate(tree.branches):
        whole = tokenizer(prompter.text(episode, prompt, i), add_special_tokens=False).input_ids
        assert tree.sequence(i).tolist() == whole
        assert branch.tokens[0] == tree.branches[0].tokens[0]
        inner = branch.targets[:-1]
        assert (inner == branch.tokens[1:])[inner != IGNORE].all()
        assert (branch.weights[branch.targets == IGNORE] == 0).all()
        written = branch.targets[branch.kinds == PROMPTS[prompt]] if prompt == "output-from-examples-v1" else None
        if written is not None:
            assert tokenizer.decode(written) == prompter.grid_encoder.encode(episode.output) + prompter.layout.end
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
    return cache(lambda name, encoder=None: Prompter(small_tokenizer(name), encoder))


@given(data=st.data(), prompt=st.sampled_from(sorted(PROMPTS)), learn=st.booleans())
def test_trees_by_turns_have_the_ids_of_their_whole_texts(chats, episodes, data, prompt, learn):
    prompter = chats("smollm", data.draw(st.sampled_from(ENCODERS)))
    assert prompter.by_turns
    assert_ids_of_whole_texts(prompter, data.draw(episodes(6)), prompt, learn)


def test_trees_by_turns_have_smollms_ids_of_their_whole_texts(smollm, episodes):
    made = cache(lambda encoder: Prompter(smollm, encoder))

    @settings(max_examples=30)
    @given(data=st.data(), prompt=st.sampled_from(sorted(PROMPTS)), learn=st.booleans())
    def check(data, prompt, learn):
        prompter = made(data.draw(st.sampled_from(ENCODERS)))
        assert prompter.by_turns
        assert_ids_of_whole_texts(prompter, data.draw(episodes(6)), prompt, learn)

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
        Prompter(small_tokenizer("llama"), encoder)
    assert len(str(error.value).splitlines()) == 1
    assert Prompter(small_tokenizer("llama"), WITHOUT_DIGITS).by_turns


def test_qwen_is_tokenized_from_pieces_as_before(qwen, nestings):
    assert not any(Prompter(qwen, nesting).by_turns for nesting in nestings)


def test_selections_by_turns_share_a_prefix_and_have_the_ids_of_their_whole_texts(chats):
    prompter = chats("smollm")
    orders = [(0, 1), (1, 0)]
    tree = prompter.selections(EPISODE, orders)
    rendered = prompter.layout.selections(EPISODE, orders)
    for i in range(2):
        whole = prompter.tokenizer(prompter.layout.text(rendered, i), add_special_tokens=False).input_ids
        assert tree.sequence(i).tolist() == whole
        assert tree.branches[i].targets[-1] == prompter.choice_ids[1 - i]
    assert len(tree.prefix) > len(tree.branches[0].tokens)


def test_an_answer_by_turns_goes_on_from_its_opening_and_is_read_back(chats, grids):
    prompter = chats("smollm")

    @settings(max_examples=30)
    @given(grid=grids(12))
    def check(grid):
        opening, written = prompter.opening(EPISODE), prompter.write(grid)
        text = prompter.layout.text_of(prompter.layout.examples(EPISODE, "write")) + prompter.grid_encoder.encode(grid)
        ids = prompter.tokenizer(text + prompter.layout.end, add_special_tokens=False).input_ids
        assert [*opening, *written, prompter.end_id] == ids
        assert (prompter.read(written) == grid).all()

    check()


def test_a_branch_that_only_writes_is_the_beginning_of_one_that_is_judged(chats):
    prompter = chats("smollm")
    written = prompter.tree(EPISODE, "output-from-examples-v1").sequence(0).tolist()
    judged = prompter.tree(EPISODE, VERIFY_V1).sequence(1).tolist()
    assert judged[: len(written)] == written


def test_a_grammar_of_a_tokenizer_by_turns_follows_what_is_written(chats):
    prompter = chats("smollm")
    assert prompter.by_turns
    grammar = Grammar(prompter)
    grid = as_grid([[1, 2, 3], [4, 5, 6]])
    tokens = [*prompter.write(grid), prompter.end_id]
    shapes, before = grammar.start(1, 200), np.array([-1])
    for place, token in enumerate(tokens):
        assert grammar.allowed(place, shapes, before, 2000)[0, token]
        shapes = grammar.advance(place, shapes, before, np.array([token]))
        before = np.array([token])
    assert shapes.sum() == 1


def test_cells_of_several_tokens_leave_the_grammar_out_with_one_line(small_tokenizer):
    prompter = Prompter(small_tokenizer("smollm"), "ReplaceNumberEncoder(symbols='零一二三四五六七八九')")
    with pytest.raises(DataError, match=r"model.decoding.constrained: .*in several tokens, set it to false"):
        Grammar(prompter)


def test_a_trimmed_vocabulary_holds_what_prompts_by_turns_are_made_of(chats):
    whole = chats("smollm")
    kept = prompt_vocabulary(whole)
    trimmed = Prompter(whole.tokenizer, None, kept)
    for prompt, kind in PROMPTS.items():
        if kind not in FROM_CODE:
            for i in range(len(whole.tree(EPISODE, prompt).branches)):
                expected = whole.tree(EPISODE, prompt).sequence(i)
                assert (kept[trimmed.tree(EPISODE, prompt).sequence(i)] == expected).all()
    assert len(kept) < 200
    assert kept[trimmed.end_id] == whole.end_id


def test_a_prompter_by_turns_goes_to_worker_processes(chats):
    prompter = chats("smollm")
    again = pickle.loads(pickle.dumps(prompter))
    for prompt in (VERIFY_V1, SELECT):
        assert again.tree(EPISODE, prompt).sequence(0).tolist() == prompter.tree(EPISODE, prompt).sequence(0).tolist()


def test_a_normalizer_that_joins_symbols_is_refused_and_not_read_back_as_another_grid(small_tokenizer):
    with pytest.raises(DataError, match=r"^lower: "):
        Prompter(small_tokenizer("lower"), "ReplaceNumberEncoder(symbols='ABCDEFGHIJ')")
