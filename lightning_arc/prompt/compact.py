"""The compact vocabulary: a hundred and some tokens that write grids, questions and verdicts, for small models.

It is a tokenizer like any other: saved in and loaded from a model's folder, so that a small model and a Qwen2.5 take
the same path.
"""

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, END, ASK, YES, NO = "<pad>", "<end>", "<ask>", "<yes>", "<no>"
INPUT, OUTPUT, OPTION = "<input>", "<output>", "<option>"
TASK, VERIFY, SELECT, INPUTS, OUTPUTS = "<task>", "<verify>", "<select>", "<inputs>", "<outputs>"
SPECIAL = (PAD, END, ASK, YES, NO, INPUT, OUTPUT, OPTION, TASK, VERIFY, SELECT, INPUTS, OUTPUTS)
COUNTS = tuple(f"<{what}{n}>" for what in "hwr" for n in range(1, 31))
"""Heights, widths, and the numbers that rows begin with."""
DIGITS = tuple("0123456789")
PIECES = r"<[a-z]+\d*>|[\s\S]"


def compact_tokenizer() -> PreTrainedTokenizerBase:
    """Make the tokenizer of the compact vocabulary; text outside of it becomes ``<pad>``."""
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *DIGITS, *COUNTS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = Split(Regex(PIECES), "isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False
    )


def is_compact(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer writes prompts in the compact vocabulary."""
    tokens = [*SPECIAL, *DIGITS, *COUNTS]
    return tokenizer.convert_tokens_to_ids(tokens) == list(range(len(tokens)))
