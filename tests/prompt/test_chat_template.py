"""Chat templates as published models have them: what stands around turns, the same wherever a turn stands."""

import copy

import pytest

from lightning_arc.arc.grid import as_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.errors import DataError
from lightning_arc.prompt.chat_prompt import ChatTemplatePrompt
from lightning_arc.prompt.chat_template import CHATML, check_arguments, own_template, read_template, turn_frames
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.grid_encoders import MinimalGridEncoder

A, B = as_grid([[0, 1]]), as_grid([[2, 3]])
EPISODE = Episode(
    PairKey("a", "test", 0), (Pair(A, B),), A, B, (LabeledCandidate(B, True), LabeledCandidate(A, False)), "x = 1"
)
ASSISTANT = "{% if add_generation_prompt %}<A>{% endif %}"
EMPTY = "<think>\n\n</think>\n\n"
CLOSED = "<|im_end|>\n<|im_start|>assistant\n" + EMPTY


def _chatml(last_answer: str, generation: str) -> str:
    """ChatML in which only the last answer, and the prompt for one, have something before them."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
        f"{last_answer}{{% endif %}}{{{{ m.content }}}}<|im_end|>\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{generation}{{% endif %}}"
    )


# The structure of published templates, in other words: by name the text, and what is before an answer.
QWEN3 = _chatml(EMPTY, "{% if enable_thinking is defined and not enable_thinking %}" + EMPTY + "{% endif %}")
PUBLISHED = {
    "plain ChatML": (CHATML, "<|im_end|>\n<|im_start|>assistant\n"),
    "Qwen3": (QWEN3, CLOSED),
    "Qwen3.5": (
        _chatml(EMPTY, "{% if enable_thinking is false %}" + EMPTY + "{% else %}<think>\n{% endif %}"),
        CLOSED,
    ),
    "SmolLM3": (_chatml("", "{% if enable_thinking is false %}" + EMPTY + "{% endif %}"), CLOSED[: -len(EMPTY)]),
    "Gemma": (
        "<bos>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<end_of_turn>\n<start_of_turn>model\n",
    ),
    "Mistral": (  # the system text stands before the last question
        "<s>{% for m in messages %}{% if m.role == 'user' %}[INST]{% if loop.index0 >= messages | length - 2 and "
        "messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}",
        "[/INST] ",
    ),
    "DeepSeek-V3.1": (
        "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<U>"
        "{{ m.content }}{% else %}<A></think>{{ m.content }}<eos>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<A>{{ '<think>' if thinking else '</think>' }}{% endif %}",
        "<A></think>",
    ),
    "DeepSeek-R1": (  # a prompt for an answer opens a thinking block, an answered question has none
        "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<U>"
        "{{ m.content }}{% else %}<A>{{ m.content }}<eos>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<A><think>\n{% endif %}",
        "<A>",
    ),
    "GLM-4": (  # the next role's token ends a turn, and a line break belongs to the answered turn alone
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "<|assistant|>\n",
    ),
    "gpt-oss": (  # answers are in a channel; the date is today's
        "<start>system: {{ strftime_now('%Y-%m-%d') }}<end>{% for m in messages %}"
        "{% if m.role == 'assistant' %}<start>assistant<channel>final<message>{{ m.content }}"
        "{{ '<return>' if loop.last else '<end>' }}"
        "{% else %}<start>{{ 'developer' if m.role == 'system' else m.role }}<message>{{ m.content }}<end>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<start>assistant{% endif %}",
        "<end><start>assistant<channel>final<message>",
    ),
    "Nemotron": (
        _chatml("<think></think>", "{% if enable_thinking is false %}<think></think>{% else %}<think>\n{% endif %}"),
        "<|im_end|>\n<|im_start|>assistant\n<think></think>",
    ),
    "no system role, and none refused": (
        "{% for m in messages if m.role != 'system' %}{{ '<U>' if m.role == 'user' else '<A>' }}{{ m.content }}<E>"
        "{% endfor %}" + ASSISTANT,
        "<E><A>",
    ),
}


@pytest.fixture(scope="module")
def tokenizer():
    return compact_tokenizer()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_render_every_answer_alike(tokenizer, name):
    template, before = PUBLISHED[name]
    frames = turn_frames(tokenizer, template, {}, "Be exact.")
    assert frames.answer == before
    assert frames.opening.count("Be exact.") == 1
    # what was rendered of the whole conversation, with the same before each of its answers
    template = ChatTemplatePrompt(tokenizer, MinimalGridEncoder(), template)
    written = template.text(template.render(EPISODE, "output-from-examples-v1"), 0)
    judged = template.text(template.render(EPISODE, "verify-output-from-examples-v1"), 0)
    assert judged.startswith(written[: written.rindex("23") + 2])
    assert judged.count(before) == 2
    assert judged.endswith(f"Is this output right? Answer yes or no.{before}yes")


@pytest.mark.parametrize("name", ["Qwen3", "Qwen3.5", "Nemotron"])
def test_arguments_of_a_template_are_given_to_it_and_thinking_is_closed_either_way(tokenizer, name):
    template, before = PUBLISHED[name]
    for thinking in (True, False):
        assert turn_frames(tokenizer, template, {"enable_thinking": thinking}, "s").answer == before


def test_a_closed_thinking_block_that_an_argument_asks_for_stands_before_every_answer(tokenizer):
    template = PUBLISHED["SmolLM3"][0]
    assert turn_frames(tokenizer, template, {"enable_thinking": False}, "s").answer == CLOSED
    assert turn_frames(tokenizer, template, {}, "s").answer == CLOSED[: -len(EMPTY)]


@pytest.mark.parametrize("name", ["Gemma", "Mistral", "no system role, and none refused"])
def test_the_system_text_begins_the_first_users_turn_where_there_is_no_system_role(tokenizer, name):
    frames = turn_frames(tokenizer, PUBLISHED[name][0], {}, "Be exact.")
    assert frames.opening.endswith("Be exact.\n\n")
    assert "Be exact." not in frames.question + frames.answer


def test_a_template_is_given_the_same_date_on_every_day(tokenizer):
    assert "system: 2024-07-26<end>" in turn_frames(tokenizer, PUBLISHED["gpt-oss"][0], {}, "s").opening


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}{% endif %}{% endfor %}", "leaves out a"),
        ("{% for m in messages | reverse %}{{ m.role }}{{ m.content }}{% endfor %}", "changes the order"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "nothing ends an answer"),
        ("{{ messages | length }}{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}", "another way once"),
        ("{% for m in messages %}", "is no valid Jinja"),
        ("{{ raise_exception('tools\nonly') }}", "fails: tools only"),
        ("{{ messages.0.content + 1 }}", "fails: "),
    ],
)
def test_a_template_that_does_not_fit_is_refused_with_model_reason_and_remedy(tokenizer, template, reason):
    named = copy.deepcopy(tokenizer)
    named.name_or_path = "models/odd"
    with pytest.raises(DataError, match=reason) as error:
        turn_frames(named, template, {}, "s")
    message = str(error.value)
    assert message.startswith("models/odd: the chat template ") and "data.chat_template" in message
    assert len(message.splitlines()) == 1


def test_a_base_models_tokenizer_takes_chatml_if_it_has_its_tokens(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    bare.name_or_path = "models/base"
    with pytest.raises(DataError, match=r"^models/base: .* no chat template .*data.chat_template"):
        own_template(bare)
    bare.unk_token = "<pad>"
    with pytest.raises(DataError, match="no chat template"):
        own_template(bare)  # an unknown token is none of ChatML's
    bare.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    assert own_template(bare) == CHATML


def test_several_templates_of_a_tokenizer_need_a_default(tokenizer):
    several = copy.deepcopy(tokenizer)
    several.chat_template = {"default": "d", "tool_use": "t"}
    assert own_template(several) == "d"
    several.chat_template = {"rag": "r", "tool_use": "t"}
    with pytest.raises(DataError, match=r"several chat templates .*data.chat_template"):
        own_template(several)


def test_a_template_is_read_from_a_file_or_refused_with_its_name(tmp_path):
    (tmp_path / "good.jinja").write_text(CHATML)
    assert read_template(tmp_path / "good.jinja") == CHATML
    (tmp_path / "empty.jinja").write_text(" \n")
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe")
    for name, reason in (
        ("none", "No such file"),
        ("empty.jinja", "empty"),
        ("bytes.jinja", "not UTF-8"),
        (".", "directory"),
    ):
        with pytest.raises(DataError, match=f"{reason}.*data.chat_template"):
            read_template(tmp_path / name)


@pytest.mark.parametrize("name", ["messages", "tokenize", "add_generation_prompt", "chat_template", "strftime_now"])
def test_arguments_that_this_program_sets_are_refused(name):
    with pytest.raises(DataError, match=rf"data.chat_template_kwargs: '{name}' is set by this program"):
        check_arguments({"enable_thinking": False, name: True})
