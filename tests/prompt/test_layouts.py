"""Layouts: the text of prompts, through a chat template and in the compact vocabulary."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc.grid import as_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.errors import DataError
from lightning_arc.prompt.chat_prompt import ChatTemplatePrompt
from lightning_arc.prompt.compact_prompt import CompactPrompt
from lightning_arc.prompt.grid_encoders import MinimalGridEncoder
from lightning_arc.prompt.parser import parse_encoder
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS
from lightning_arc.prompt.tree import PromptKind

A, B, C, D = (as_grid([[i, i + 1]]) for i in range(4))
CODE = "def f(grid):\n    return grid + 1"
ANSWERS = (LabeledCandidate(A, False, 7), LabeledCandidate(D, True, 3))
EPISODE = Episode(PairKey("3c9b0459", "test", 0), (Pair(A, B), Pair(B, C)), C, D, ANSWERS, CODE)
GIVEN = (
    "<task><input><h1><w2><r1>01<output><h1><w2><r1>12<end>"
    "<input><h1><w2><r1>12<output><h1><w2><r1>23<end><input><h1><w2><r1>23"
)
COMPACT = {
    "output-from-examples-v1": [GIVEN + "<output><h1><w2><r1>34<end>"],
    "verify-output-from-examples-v1": [
        GIVEN + "<output><h1><w2><r1>01<end><ask><no>",
        GIVEN + "<output><h1><w2><r1>34<end><ask><yes>",
    ],
    "verify-output-from-examples-v0": [
        GIVEN + "<verify><h1><w2><r1>01<ask><no>",
        GIVEN + "<verify><h1><w2><r1>34<ask><yes>",
    ],
    "select-output-from-examples-v0": [GIVEN + "<select><option><h1><w2><r1>01<option><h1><w2><r1>34<ask>2"],
    "input-from-inputs-v0": ["<inputs><input><h1><w2><r1>01<end><input><h1><w2><r1>12<end><input><h1><w2><r1>23<end>"],
    "output-from-outputs-v0": [
        "<outputs><output><h1><w2><r1>12<end><output><h1><w2><r1>23<end><output><h1><w2><r1>34<end>"
    ],
}


def conversation(text: str) -> list[dict[str, str]]:
    """Read the turns of a ChatML text back; the last may be unfinished."""
    turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", text, re.DOTALL)
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("prompt", COMPACT)
def test_the_compact_layout_writes_what_models_were_trained_with(prompt):
    template = CompactPrompt()
    rendered = template.render(EPISODE, prompt)
    assert [template.text(rendered, i) for i in range(len(rendered.branches))] == COMPACT[prompt]


@given(data=st.data(), prompt=st.sampled_from(sorted(PROMPTS)))
def test_a_chat_prompt_is_what_the_chat_template_makes_of_its_turns(qwen, nestings, episodes, data, prompt):
    template = ChatTemplatePrompt(qwen, parse_encoder(data.draw(st.sampled_from(nestings))))
    rendered = template.render(data.draw(episodes(6)), prompt)
    for i in range(len(rendered.branches)):
        text = template.text(rendered, i)
        turns = conversation(text)
        whole = qwen.apply_chat_template(turns, tokenize=False)
        assert whole.startswith(text)
        assert whole[len(text) :] in ("\n", "<|im_end|>\n")
        roles = ["system", "user", "assistant"] + ["user", "assistant"] * (prompt == "verify-output-from-examples-v1")
        assert [turn["role"] for turn in turns] == roles


def test_a_judged_answer_is_a_turn_of_the_assistant_and_its_verdict_the_next(qwen):
    template = ChatTemplatePrompt(qwen, MinimalGridEncoder())
    rendered = template.render(EPISODE, "verify-output-from-examples-v1")
    wrong, right = (conversation(template.text(rendered, i)) for i in range(2))
    assert [turn["content"] for turn in wrong[2:]] == ["01", "Is this output right? Answer yes or no.", "no"]
    assert [turn["content"] for turn in right[2:]] == ["34", "Is this output right? Answer yes or no.", "yes"]


def test_a_verdict_asked_in_one_turn_shows_the_answer_inside_the_question(qwen):
    template = ChatTemplatePrompt(qwen, MinimalGridEncoder())
    rendered = template.render(EPISODE, "verify-output-from-examples-v0")
    turns = conversation(template.text(rendered, 0))
    assert turns[1]["content"].endswith(
        "Proposed output:\n01\n\nIs the proposed output of the test right? Answer yes or no."
    )
    assert turns[2]["content"] == "no"


def test_options_are_numbered_in_the_order_given_and_the_number_of_the_right_one_is_the_answer(qwen):
    template = ChatTemplatePrompt(qwen, MinimalGridEncoder())
    turns = conversation(template.text(template.render(EPISODE, "select-output-from-examples-v0"), 0))
    assert "# Option 1\n\n01\n\n# Option 2\n\n34\n\n" in turns[1]["content"]
    assert turns[2]["content"] == "2"


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_series_shows_one_side_of_the_demonstrations_and_asks_for_the_next(qwen, side):
    template = ChatTemplatePrompt(qwen, MinimalGridEncoder())
    name = f"{side}-from-{side}s-v0"
    turns = conversation(template.text(template.render(EPISODE, name), 0))
    shown, target = (("01", "12"), "23") if side == "input" else (("12", "23"), "34")
    assert re.findall(r"^\d+$", turns[1]["content"], re.MULTILINE) == list(shown)
    assert turns[2]["content"] == target


@pytest.mark.parametrize("make", ["chat", "compact"])
def test_writing_and_judging_an_output_share_their_prefix(qwen, make):
    template = ChatTemplatePrompt(qwen, MinimalGridEncoder()) if make == "chat" else CompactPrompt()
    write, verify = (template.render(EPISODE, f"{name}output-from-examples-v1") for name in ("", "verify-"))
    shown = [
        [(segment.text, None if segment.grid is None else segment.grid.tolist()) for segment in each.prefix]
        for each in (write, verify)
    ]
    assert shown[0] == shown[1]


def test_code_prompts_show_a_program_or_ask_for_it(qwen):
    template = ChatTemplatePrompt(qwen, MinimalGridEncoder())
    block = f"```python\n{CODE}\n```"
    turns = {}
    for name in ("code-from-examples-v0", "output-from-code-v0", "input-from-code-v0"):
        (_, question, answer) = conversation(template.text(template.render(EPISODE, name), 0))
        turns[name] = (question["content"], answer["content"])
    question, answer = turns["code-from-examples-v0"]
    assert answer == block and block not in question
    assert "01\n\nOutput:\n12" in question and "12\n\nOutput:\n23" in question
    assert "34" not in question  # the query is no part of it
    question, answer = turns["output-from-code-v0"]
    assert block in question and "# Input\n\n23\n\n" in question and answer == "34"
    question, answer = turns["input-from-code-v0"]
    assert block in question and "34" not in question and answer == "23"


def test_code_prompts_need_code_and_a_tokenizer_that_can_write_it(qwen):
    bare = replace(EPISODE, code=None)
    for name in ("code-from-examples-v0", "output-from-code-v0", "input-from-code-v0"):
        with pytest.raises(ValueError, match=rf"3c9b0459/test\[0\]: {name} needs the task's code"):
            ChatTemplatePrompt(qwen, MinimalGridEncoder()).render(bare, name)
        with pytest.raises(DataError, match="the compact vocabulary writes no code"):
            CompactPrompt().render(EPISODE, name)


def test_every_prompt_is_of_the_kind_that_it_is_named_after():
    for name, kind in PROMPTS.items():
        assert re.fullmatch(rf"{kind.label}-v\d+", name)
    assert set(PROMPTS.values()) == set(PromptKind)


def test_an_unknown_prompt_is_refused_with_the_names_of_those_that_exist():
    with pytest.raises(DataError, match="'output-v9'.*output-from-examples-v1, verify-output-from-examples-v1"):
        CompactPrompt().render(EPISODE, "output-v9")


def test_an_episode_that_lacks_what_a_prompt_needs_is_refused():
    template, known = CompactPrompt(), EPISODE.answers
    unknown = Episode(EPISODE.key, EPISODE.demonstrations, C, None)
    for prompt, kind in PROMPTS.items():
        if kind in FROM_CODE:
            continue
        if prompt == "input-from-inputs-v0":
            template.render(unknown, prompt)
        else:
            with pytest.raises(ValueError, match=r"3c9b0459/test\[0\].* needs "):
                template.render(unknown, prompt)
    for answers in ((known[1],), (known[0], known[0]), known * 5):
        with pytest.raises(ValueError, match="2 to 9 answers"):
            template.render(Episode(EPISODE.key, (), C, D, answers), "select-output-from-examples-v0")
