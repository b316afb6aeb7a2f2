"""Chat templates: where one comes from, and the text that it puts around the turns of a conversation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from lightning_arc.errors import DataError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of models that have none, where their tokenizer has its tokens, as that of Qwen's base models does."""
REMEDY = "give a Jinja file with data.chat_template"
_DATE = {"%Y": "2024", "%y": "24", "%m": "07", "%d": "26", "%-d": "26", "%B": "July", "%b": "Jul", "%A": "Friday"} | {
    "%a": "Fri",
    "%H": "00",
    "%M": "00",
    "%S": "00",
}
"""The date that is passed to templates (Llama's own default), so that a prompt is the same on every day."""
_TODAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{value}')" for code, value in _DATE.items())
    + " }}{% endmacro %}\n"
)
RESERVED = {*signature(PreTrainedTokenizerBase.apply_chat_template).parameters} | {"messages", "strftime_now"}
_MARKS = [f"\N{REPLACEMENT CHARACTER}{name}" for name in ("system", 0, 1, 2, 3)]


@dataclass(frozen=True)
class Frames:
    """The texts around the turns of a conversation, which are the same for every turn of a role.

    Args:
        opening: before the first user's text; holds the system text.
        answer: between a user's text and the assistant's, as it stands before the last assistant's turn.
        question: between an assistant's text and the next user's; its first token ends the assistant's turn.
    """

    opening: str
    answer: str
    question: str


def read_template(path: str | Path) -> str:
    """Read a Jinja file.

    Raises:
        DataError: if there is none, or it is empty or no text.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{path!s:.200}: {reason}; data.chat_template names a Jinja file") from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty; data.chat_template names a Jinja file")
    return text


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise a `DataError` that names the first argument which no template may be given."""
    for name in arguments:
        if name in RESERVED:
            raise DataError(
                f"data.chat_template_kwargs: {name!r} is set by this program; give the template's own names"
            )
    try:
        json.dumps(arguments)
    except TypeError as error:
        raise DataError(f"data.chat_template_kwargs: {error}; expected text, numbers, booleans and lists") from error


def own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a tokenizer's chat template, ChatML where it has none but knows ChatML's tokens.

    Raises:
        DataError: if it has neither.
    """
    name = name_of(tokenizer)
    if tokenizer.chat_template:
        try:
            return tokenizer.get_chat_template()
        except ValueError as error:
            raise DataError(f"{name}: several chat templates and no default among them; {REMEDY}") from error
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")]
    if None not in ids and tokenizer.unk_token_id not in ids:
        return CHATML
    raise DataError(f"{name}: the tokenizer has no chat template (a base model?) and no tokens of ChatML; {REMEDY}")


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a tokenizer's name for messages."""
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__


def turn_frames(tokenizer: PreTrainedTokenizerBase, template: str, arguments: Mapping[str, Any], system: str) -> Frames:
    """Return the texts that a chat template puts around the turns of a judged answer: two questions, each answered.

    Templates treat the last turn in their own ways: Qwen3 puts an empty thinking block before the last answer only,
    Mistral the system text before the last question. Here every answer gets the text that the template puts before the
    last one, so that a shorter conversation is the beginning of a longer one.

    Args:
        tokenizer: whose special tokens the template may use.
        template: the template's text.
        arguments: further names that the template uses, such as ``enable_thinking``.
        system: text of the system; the first user's turn begins with it where the template has no such role.

    Raises:
        DataError: names the model and what about the template does not fit.
    """
    name, dated = name_of(tokenizer), (_TODAY if "strftime_now" in template else "") + template
    system_mark, *marks = _MARKS

    def render(turns: list[str], with_system: bool, **options: Any) -> str:
        messages = [{"role": "system", "content": system_mark}] if with_system else []
        roles = ("user", "assistant") * len(turns)
        messages += [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
        text = tokenizer.apply_chat_template(
            messages, chat_template=dated, tokenize=False, **dict(arguments), **options
        )
        assert isinstance(text, str)  # it is not tokenized
        return text

    def frames(with_system: bool) -> Frames:
        whole = _between(render(marks, with_system), marks)
        opening, generation = _between(render(marks[:1], with_system, add_generation_prompt=True), marks[:1])
        if opening != whole[0]:
            raise DataError("it writes the first question in another way once a second one follows")
        if with_system and opening.count(system_mark) != 1:
            raise DataError("it leaves out the system text")
        if not whole[2]:
            raise DataError("nothing ends an answer")
        before_last = whole[3]
        # An answer cannot stand in an open thinking block, but behind a closed one that only the generation prompt has.
        longer = generation.startswith(before_last) and generation.count("<think>") == generation.count("</think>")
        opening = opening.replace(system_mark, system) if with_system else f"{opening}{system}\n\n"
        return Frames(opening, generation if longer else before_last, whole[2])

    try:
        try:
            return frames(True)
        except Exception:  # no system role, or one that does not fit; a template runs code that may raise anything
            return frames(False)
    except DataError as error:
        raise DataError(f"{name}: the chat template does not fit: {error}; {REMEDY}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        what = "is no valid Jinja" if isinstance(error, TemplateSyntaxError) else "fails"
        raise DataError(f"{name}: the chat template {what}: {reason}; {REMEDY}") from error


def _between(text: str, marks: list[str]) -> list[str]:
    """Return the texts before, between and behind marks, each of which must occur once and in order."""
    if any(text.count(mark) != 1 for mark in marks):
        raise DataError("it leaves out a turn of the conversation, or repeats one")
    places = [text.index(mark) for mark in marks]
    if places != sorted(places):
        raise DataError("it changes the order of turns")
    bounds = [0, *(bound for place, mark in zip(places, marks, strict=True) for bound in (place, place + len(mark)))]
    return [text[start:stop] for start, stop in list(pairwise([*bounds, len(text)]))[::2]]
