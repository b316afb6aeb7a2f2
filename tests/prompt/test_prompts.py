import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import AutoTokenizer

from lightning_arc.arc import Answer, DataError, Episode, Pair, PairKey, same_grid
from lightning_arc.prompt.compact import compact_tokenizer, is_compact
from lightning_arc.prompt.encoders import ENCODERS, DecodeError, GridEncoder
from lightning_arc.prompt.layouts import PROMPTS, ChatLayout
from lightning_arc.prompt.parser import parse_encoder
from lightning_arc.prompt.pieces import PieceTokenizer
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tree import IGNORE, Kind

NESTINGS = [
    "MinimalGridEncoder()",
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "GridCodeBlockEncoder(MinimalGridEncoder())",
    "GridWithSeparationEncoder('|')",
    "GridShapeEncoder(RowNumberEncoder(GridWithSeparationEncoder(' ')))",
    "RowNumberEncoder(RepeatNumberEncoder(3))",
    "GridCodeBlockEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))",
    "ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghij')",
    "CompactGridEncoder()",
]
grids = arrays(np.int8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 9))
small = arrays(np.int8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 9))


@st.composite
def episodes(draw):
    demonstrations = tuple(Pair(draw(small), draw(small)) for _ in range(draw(st.integers(1, 3))))
    right = draw(small)
    wrong = [g for g in draw(st.lists(small, max_size=3)) if not same_grid(g, right)]
    wrong = wrong or [np.concatenate([right, right])]
    answers = [Answer(right, True, 0), *(Answer(g, False, i) for i, g in enumerate(wrong, 1))]
    return Episode(PairKey("t", "test", 0), demonstrations, draw(small), right, tuple(answers))


@pytest.fixture(scope="module")
def qwen(shared):
    return AutoTokenizer.from_pretrained(shared / "qwen2.5-0.5b")


@pytest.mark.parametrize("text", NESTINGS)
@given(grid=grids)
def test_a_decoder_gives_back_what_its_encoder_wrote(text, grid):
    encoder = parse_encoder(text)
    assert same_grid(encoder.decode(encoder.encode(grid)), grid)


@pytest.mark.parametrize("text", NESTINGS)
@given(
    grid=small,
    at=st.integers(0, 10**6),
    character=st.sampled_from(string.printable),
    change=st.sampled_from(["put", "cut", "add"]),
)
def test_a_decoder_takes_no_text_but_the_encoding_of_its_grid(text, grid, at, character, change):
    encoder = parse_encoder(text)
    written = encoder.encode(grid)
    at %= len(written)
    keep = {"put": at + 1, "cut": at + 1, "add": at}[change]
    changed = written[:at] + ("" if change == "cut" else character) + written[keep:]
    try:
        decoded = encoder.decode(changed)
    except DecodeError:
        return
    assert encoder.encode(decoded) == changed


@pytest.mark.parametrize("text", NESTINGS)
def test_an_encoder_is_named_by_the_string_that_makes_it(text):
    assert str(parse_encoder(str(parse_encoder(text)))) == str(parse_encoder(text))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('x')",
        "MinimalGridEncoder",
        "NoSuchEncoder()",
        "RowNumberEncoder(MinimalGridEncoder(), 3)",
        "RowNumberEncoder(**{})",
        "RepeatNumberEncoder(0)",
        "GridWithSeparationEncoder('1')",
        "ReplaceNumberEncoder(RowNumberEncoder())",
        "RowNumberEncoder('x')",
        "lambda: 0",
        "3",
        "(",
        "(" * 5000,
        "",
    ],
)
def test_a_string_that_names_no_encoder_is_refused_in_one_line(text):
    with pytest.raises(DataError) as error:
        parse_encoder(text)
    assert "\n" not in str(error.value)


def test_every_encoder_is_in_a_nesting_above():
    assert all(any(name in text for text in NESTINGS) for name in ENCODERS)
    assert all(issubclass(encoder, GridEncoder) for encoder in ENCODERS.values())


def check_tokens(prompter, episode):
    for prompt in PROMPTS:
        for learn in (False, True):
            tree = prompter.tree(episode, prompt, learn_demonstrations=learn)
            for i, branch in enumerate(tree.branches):
                whole = prompter.tokenizer(prompter.text(episode, prompt, i), add_special_tokens=False).input_ids
                assert tree.sequence(i).tolist() == whole
                known = branch.targets[:-1] != IGNORE
                assert (branch.targets[:-1][known] == branch.tokens[1:][known]).all()
            full = np.append(tree.prefix, tree.branches[0].tokens[0])
            trained = tree.prefix_targets != IGNORE
            assert (tree.prefix_targets[trained] == full[1:][trained]).all()
            assert trained.any() == (learn and "examples" in prompt and len(episode.demonstrations) > 1)


@settings(max_examples=10)
@given(episode=episodes())
def test_compact_trees_are_the_tokens_of_the_whole_text(episode):
    check_tokens(Prompter(compact_tokenizer()), episode)


@pytest.mark.parametrize("text", NESTINGS[:-1])
@settings(max_examples=5)
@given(episode=episodes())
def test_chat_trees_are_qwens_tokens_of_the_whole_text(qwen, text, episode):
    check_tokens(Prompter(qwen, text), episode)


@given(episode=episodes())
@settings(max_examples=10)
def test_a_chat_prompt_is_what_the_chat_template_writes(qwen, episode):
    prompter = Prompter(qwen)
    layout, encode = prompter.layout, prompter.grid_encoder.encode
    assert isinstance(layout, ChatLayout)
    text = prompter.text(episode, "verify-output-from-examples-v1", 0)
    question = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
    answer = encode(episode.answers[0].grid)
    messages = layout.messages(question, answer, layout._question, "yes")
    assert qwen.apply_chat_template(messages, tokenize=False) == text + "<|im_end|>\n"


@given(st.text(alphabet=st.sampled_from("019ab.|`\n :-'é０９"), max_size=60))
def test_pieces_are_the_text_tokenizers_ids(qwen, text):
    pieces = PieceTokenizer(qwen, "０１２３４５６７８９")
    assert pieces.encode(text) == qwen(text, add_special_tokens=False).input_ids


def test_output_and_verification_share_their_prefix():
    episode = Episode(
        PairKey("t", "test", 0),
        (Pair(np.ones((2, 2), np.int8), np.zeros((1, 1), np.int8)),),
        np.ones((3, 3), np.int8),
        np.zeros((2, 1), np.int8),
        (Answer(np.zeros((2, 1), np.int8), True, 0), Answer(np.ones((2, 1), np.int8), False, 1)),
    )
    prompter = Prompter(compact_tokenizer())
    output = prompter.tree(episode, "output-from-examples-v1")
    verify = prompter.tree(episode, "verify-output-from-examples-v1", right_share=0.3)
    assert (output.prefix == verify.prefix).all()
    right, wrong = verify.branches
    assert (right.weights[:-1] == (right.targets[:-1] != IGNORE)).all() and not wrong.weights[:-1].any()
    assert (right.weights[-1], wrong.weights[-1]) == pytest.approx((0.3, 0.7))
    assert (right.targets[-1], wrong.targets[-1]) == (prompter.yes_id, prompter.no_id)
    assert set(right.kinds[right.targets != IGNORE]) == {Kind.OUTPUT_FROM_EXAMPLES, Kind.VERIFY_OUTPUT_FROM_EXAMPLES}


def test_the_compact_tokenizer_survives_its_folder(tmp_path):
    compact_tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert is_compact(loaded) and loaded.get_vocab() == compact_tokenizer().get_vocab()


def test_a_tokenizer_without_chat_template_is_refused(qwen):
    import copy

    bare = copy.deepcopy(qwen)
    bare.chat_template = None
    with pytest.raises(DataError, match="chat template"):
        Prompter(bare)


def test_an_unknown_prompt_and_a_foreign_encoder_are_refused():
    prompter = Prompter(compact_tokenizer())
    with pytest.raises(DataError, match="there are output-from-examples-v1"):
        prompter.tree(None, "no-such-prompt")
    with pytest.raises(DataError, match="CompactGridEncoder"):
        Prompter(compact_tokenizer(), "MinimalGridEncoder()")
