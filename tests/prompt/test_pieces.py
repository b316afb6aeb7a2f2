"""Token ids from pieces are the text tokenizer's ids of the whole text."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from lightning_arc.errors import DataError
from lightning_arc.prompt import compact as vocabulary
from lightning_arc.prompt import pieces
from lightning_arc.prompt.grid_encoders import FULL_WIDTH_DIGITS
from lightning_arc.prompt.pieces import PieceTokenizer

# What a prompt is made of, and what makes a byte-level tokenizer join, split and look ahead.
SNIPPETS = st.sampled_from(
    [
        "0",
        "7",
        "42",
        "\n",
        "\n\n",
        " ",
        "  ",
        "\r\n",
        "\t",
        "```",
        "```grid",
        "Input:",
        "x",
        "'s",
        ".",
        "-",
        "|",
        "０",
        "９",
    ]
    + ["<|im_end|>", "<|im_start|>assistant\n", "é", "²", "字", "🟥", "e\u0301", "# Test"]
)
TEXTS = st.one_of(st.lists(SNIPPETS, max_size=30).map("".join), st.text(max_size=30))


@pytest.fixture(scope="module")
def qwen_pieces(qwen):
    return PieceTokenizer(qwen, FULL_WIDTH_DIGITS)


@given(text=TEXTS)
@example(text="")
@example(text="0 ")
@example(text="0  1")
@example(text="０\n\n\n")
@example(text="0   x")
def test_pieces_of_any_text_give_the_ids_of_the_whole_text(qwen, qwen_pieces, text):
    assert qwen_pieces.encode(text) == qwen(text, add_special_tokens=False).input_ids
    assert qwen_pieces.array(text).tolist() == qwen_pieces.encode(text)


@given(text=st.text(st.sampled_from("ab０é🟥٢ \n1"), max_size=30))
def test_symbols_that_the_tokenizer_joins_are_not_cut_apart(qwen, text):
    mixed = PieceTokenizer(qwen, "０aé٢d🟥!💠ö９")
    assert mixed.encode(text) == qwen(text, add_special_tokens=False).input_ids


def test_full_width_digits_are_one_token_each_and_cut_apart(qwen):
    tokenizer = PieceTokenizer(qwen, FULL_WIDTH_DIGITS)
    assert len(tokenizer.encode("０１２\n３４５" * 40)) == 40 * 7
    assert set(tokenizer._gaps) == {*"０１２３４５", "\n"}


def test_whole_prompts_never_reach_the_text_tokenizer(qwen):
    lengths = []

    class Counting:
        name_or_path = "counting"
        backend_tokenizer = qwen.backend_tokenizer

        def __call__(self, text, **options):
            lengths.append(len(text))
            return qwen(text, **options)

    tokenizer = PieceTokenizer(Counting())
    tokenizer.encode("1 0120\n2 0121\n" * 500)
    assert max(lengths) < 10
    calls = len(lengths)
    tokenizer.encode("1 2222\n2 3333\n" * 500)
    assert len(lengths) == calls + len({"2", "3"}) - 1


@given(text=st.lists(st.sampled_from([*vocabulary.SPECIAL, "<h3>", "<w30>", "<r1>", *"0123456789\n"])).map("".join))
def test_the_compact_vocabulary_is_cut_token_by_token(compact, text):
    tokenizer = PieceTokenizer(compact, pattern=vocabulary.PIECES)
    assert tokenizer.encode(text) == compact(text, add_special_tokens=False).input_ids


def test_the_memory_of_gaps_is_bounded_and_ids_stay_right_beyond(qwen, monkeypatch):
    monkeypatch.setattr(pieces, "MAX_GAPS", 5)
    tokenizer = PieceTokenizer(qwen)
    for i in range(20):
        text = f"0{'x' * i} 1{'y' * i}"
        assert tokenizer.encode(text) == qwen(text, add_special_tokens=False).input_ids
    assert len(tokenizer._gaps) <= 5
    assert len(tokenizer._last) <= 5


def _tokenizer(pattern: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE({c: i for i, c in enumerate("01 ab")}, []))
    tokenizer.pre_tokenizer = Split(Regex(pattern), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, name_or_path="joiner")


@pytest.mark.parametrize("pattern", [r"\d{1,3}", r" ?\d", r"\w+", r"\d\n?"])
def test_a_tokenizer_that_joins_digits_is_refused(pattern):
    with pytest.raises(DataError, match="joiner: the tokenizer joins digits"):
        PieceTokenizer(_tokenizer(pattern))


def test_a_tokenizer_without_a_pre_tokenizer_is_refused():
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"0": 0}, unk_token="0")))
    with pytest.raises(DataError, match="joins digits"):
        PieceTokenizer(plain)
