"""Token trees of episodes: the text tokenizer's ids, and targets and weights where they belong."""

import copy
import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_arc.arc.grid import as_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.errors import DataError
from lightning_arc.prompt.chat_prompt import ChatTemplatePrompt
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.grid_encoders import CompactGridEncoder, MinimalGridEncoder, ReplaceNumberEncoder
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS, SELECT
from lightning_arc.prompt.tree import IGNORE, PromptKind, TokenTree

A, B, C, D = (as_grid([[i, i + 1]]) for i in range(4))
KEY = PairKey("3c9b0459", "test", 0)
ANSWERS = (LabeledCandidate(A, False, 7), LabeledCandidate(D, True, 3))
EPISODE = Episode(KEY, (Pair(A, B), Pair(B, C), Pair(D, A)), C, D, ANSWERS, "def f(grid):\n    return grid + 1")
NAMES = st.sampled_from(sorted(PROMPTS))
WITHOUT_CODE = st.sampled_from(sorted(name for name, kind in PROMPTS.items() if kind not in FROM_CODE))
VERIFY_V1, VERIFY_V0 = "verify-output-from-examples-v1", "verify-output-from-examples-v0"


@pytest.fixture(scope="module")
def chat(qwen):
    """A function that gives the prompter of Qwen's tokenizer with a grid encoder."""
    return cache(lambda encoder=None: PromptEncoder(qwen, encoder))


@pytest.fixture(scope="module")
def small(compact):
    return PromptEncoder(compact)


def assert_sound(tree: TokenTree) -> None:
    """Check what holds for every tree: types, lengths, and targets that are the next tokens."""
    assert len(tree.prefix) == len(tree.prefix_targets)
    for array in (tree.prefix, tree.prefix_targets):
        assert array.dtype == np.int32
    following = np.append(tree.prefix[1:], tree.branches[0].tokens[0])
    assert (tree.prefix_targets == following)[tree.prefix_targets != IGNORE].all()
    for branch in tree.branches:
        types = [array.dtype for array in (branch.tokens, branch.targets, branch.kinds, branch.weights)]
        assert types == [np.int32, np.int32, np.int8, np.float32]
        assert len(branch.tokens) == len(branch.targets) == len(branch.kinds) == len(branch.weights)
        assert branch.tokens[0] == tree.branches[0].tokens[0]
        inner = branch.targets[:-1]
        assert (inner == branch.tokens[1:])[inner != IGNORE].all()
        assert branch.targets[-1] != IGNORE
        assert (branch.weights[branch.targets == IGNORE] == 0).all()


@settings(max_examples=120)
@given(data=st.data(), prompt=NAMES, learn=st.booleans())
def test_every_branch_has_the_ids_of_its_whole_text_in_a_chat(chat, qwen, nestings, episodes, data, prompt, learn):
    prompt_encoder = chat(data.draw(st.sampled_from(nestings)))
    episode = data.draw(episodes())
    tree = prompt_encoder.tree(episode, prompt, learn_demonstrations=learn)
    assert_sound(tree)
    for i in range(len(tree.branches)):
        assert (
            tree.sequence(i).tolist()
            == qwen(prompt_encoder.text(episode, prompt, i), add_special_tokens=False).input_ids
        )


@given(data=st.data(), prompt=WITHOUT_CODE, learn=st.booleans())
def test_every_branch_has_the_ids_of_its_whole_text_in_the_compact_vocabulary(
    small, compact, episodes, data, prompt, learn
):
    episode = data.draw(episodes())
    tree = small.tree(episode, prompt, learn_demonstrations=learn)
    assert_sound(tree)
    for i in range(len(tree.branches)):
        assert tree.sequence(i).tolist() == compact(small.text(episode, prompt, i), add_special_tokens=False).input_ids
        assert compact.pad_token_id not in tree.sequence(i)


def test_grids_of_thirty_by_thirty_have_the_ids_of_their_whole_text(chat, qwen, nestings):
    grid = as_grid(np.random.default_rng(0).integers(10, size=(30, 30)))
    episode = Episode(
        KEY, (Pair(grid, grid),), grid, grid, (LabeledCandidate(grid, True), LabeledCandidate(grid.T, False))
    )
    for nesting in nestings:
        tree = chat(nesting).tree(episode, VERIFY_V1)
        for i in range(2):
            assert tree.sequence(i).tolist() == qwen(chat(nesting).text(episode, VERIFY_V1, i)).input_ids


def test_segments_are_cut_exactly_whatever_the_chat_template_is(qwen, episodes):
    trimmed = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|endoftext|>\n \n{% endfor %}"
    other = copy.deepcopy(qwen)
    other.chat_template = trimmed + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    prompt_encoder = PromptEncoder(other, "GridShapeEncoder()")
    for prompt in PROMPTS:
        text = prompt_encoder.text(EPISODE, prompt)
        assert (
            prompt_encoder.tree(EPISODE, prompt).sequence(0).tolist() == qwen(text, add_special_tokens=False).input_ids
        )
    assert prompt_encoder.end_id == qwen.convert_tokens_to_ids("<|endoftext|>")


@given(data=st.data())
def test_writing_trains_the_grid_and_the_end_of_the_turn_and_nothing_else(chat, qwen, nestings, episodes, data):
    prompt_encoder = chat(data.draw(st.sampled_from(nestings)))
    episode = data.draw(episodes(6))
    tree = prompt_encoder.tree(episode, "output-from-examples-v1")
    (branch,) = tree.branches
    written = qwen(prompt_encoder.grid_encoder.encode(episode.output) + "<|im_end|>").input_ids
    assert branch.targets.tolist() == written
    assert (branch.kinds == PromptKind.OUTPUT_FROM_EXAMPLES).all()
    assert (branch.weights == 1).all()
    assert (tree.prefix_targets == IGNORE).all()
    assert (branch.answer, branch.correct) == (-1, None)
    assert tree.prompt == "output-from-examples-v1"


@given(data=st.data())
def test_judging_scores_every_written_answer_and_trains_only_right_ones(chat, small, episodes, data):
    prompt_encoder = data.draw(st.sampled_from(["chat", "small"]))
    prompt_encoder = chat() if prompt_encoder == "chat" else small
    episode = data.draw(episodes(6))
    tree = prompt_encoder.tree(episode, VERIFY_V1)
    assert [(b.answer, b.correct) for b in tree.branches] == [(a.index, a.correct) for a in episode.answers]
    for branch, answer in zip(tree.branches, episode.answers, strict=True):
        text = prompt_encoder.grid_encoder.encode(answer.grid) + prompt_encoder.template.end
        written = prompt_encoder.tokenizer(text, add_special_tokens=False).input_ids
        scored = branch.targets != IGNORE
        assert branch.targets[scored].tolist()[:-1] == written
        assert scored[: len(written)].all() and scored[-1] and scored.sum() == len(written) + 1
        assert (branch.kinds[: len(written)] == PromptKind.OUTPUT_FROM_EXAMPLES).all()
        assert (branch.weights[: len(written)] == (answer.correct is True)).all()
        assert branch.kinds[-1] == PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES
        assert branch.targets[-1] == (prompt_encoder.no_id if answer.correct is False else prompt_encoder.yes_id)


@given(data=st.data(), prompt=st.sampled_from([VERIFY_V0, VERIFY_V1]), share=st.floats(0.1, 0.9))
def test_right_verdicts_weigh_their_share_wrong_ones_the_rest_and_unknown_ones_nothing(
    small, episodes, data, prompt, share
):
    tree = small.tree(data.draw(episodes(4)), prompt, right_share=share)
    weights = {True: 0.0, False: 0.0, None: 0.0}
    for branch in tree.branches:
        weights[branch.correct] += branch.weights[-1]
    assert weights[True] == pytest.approx(share)
    assert weights[None] == 0
    if any(branch.correct is False for branch in tree.branches):
        assert weights[False] == pytest.approx(1 - share)


@pytest.mark.parametrize("correct", [True, False])
def test_answers_of_one_class_alone_weigh_that_class_share(small, correct):
    answers = (LabeledCandidate(A, correct, 0), LabeledCandidate(B, correct, 1))
    tree = small.tree(replace(EPISODE, answers=answers), VERIFY_V1, right_share=0.8)
    assert sum(b.weights[-1] for b in tree.branches) == pytest.approx(0.8 if correct else 0.2)


def test_a_shown_answer_has_a_verdict_as_its_only_target(chat, small):
    for prompt_encoder in (chat(), small):
        tree = prompt_encoder.tree(EPISODE, VERIFY_V0)
        for branch, verdict in zip(tree.branches, (prompt_encoder.no_id, prompt_encoder.yes_id), strict=True):
            assert branch.targets.tolist() == [IGNORE] * (len(branch.targets) - 1) + [verdict]
            assert branch.kinds[-1] == PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES


def test_a_selection_has_the_number_of_the_right_option_as_its_only_target(chat, small):
    for prompt_encoder in (chat(), small):
        (branch,) = prompt_encoder.tree(EPISODE, "select-output-from-examples-v0").branches
        assert branch.targets.tolist() == [IGNORE] * (len(branch.targets) - 1) + [prompt_encoder.choice_ids[1]]
        assert (branch.kinds[-1], branch.weights[-1], branch.answer) == (PromptKind.SELECT_OUTPUT_FROM_EXAMPLES, 1, -1)


@given(data=st.data())
def test_every_selection_of_a_tree_has_the_ids_of_its_whole_text_behind_one_prefix(
    chat, small, nestings, episodes, data
):
    prompt_encoder = data.draw(st.sampled_from([small, *map(chat, nestings)]))
    episode = data.draw(episodes(8))
    places = st.permutations(range(len(episode.answers)))
    orders = data.draw(
        st.lists(st.builds(lambda p, n: tuple(p[:n]), places, st.integers(2, 5)), min_size=1, max_size=4)
    )
    tree = prompt_encoder.selections(episode, orders)
    assert_sound(tree)
    rendered = prompt_encoder.template.selections(episode, orders)
    right = [episode.answers[place].correct for order in orders for place in order].count(True)
    for i, (branch, order) in enumerate(zip(tree.branches, orders, strict=True)):
        text = prompt_encoder.template.text(rendered, i)
        assert tree.sequence(i).tolist() == prompt_encoder.tokenizer(text, add_special_tokens=False).input_ids
        assert (branch.targets[:-1] == IGNORE).all() and branch.kinds[-1] == PromptKind.SELECT_OUTPUT_FROM_EXAMPLES
        correct = [episode.answers[place].correct is True for place in order]
        assert branch.targets[-1] == prompt_encoder.choice_ids[correct.index(True) if any(correct) else 0]
        assert branch.weights[-1] == (pytest.approx(1 / right) if any(correct) else 0)
        alone = prompt_encoder.selections(episode, [order])
        assert alone.sequence(0).tolist() == tree.sequence(i).tolist()


def test_selections_among_all_answers_in_their_order_are_the_selection_that_is_trained(chat, small):
    for prompt_encoder in (chat(), small):
        trained, selected = prompt_encoder.tree(EPISODE, SELECT), prompt_encoder.selections(EPISODE, [(0, 1)])
        assert trained.sequence(0).tolist() == selected.sequence(0).tolist()
        assert (trained.branches[0].weights == selected.branches[0].weights).all()


@pytest.mark.parametrize("order", [(), (0,), (0, 0), tuple(range(10))])
def test_a_selection_has_two_to_nine_different_options(small, order):
    answers = tuple(LabeledCandidate(as_grid([[i % 10]]), None, i) for i in range(12))
    with pytest.raises(ValueError, match=r"3c9b0459/test\[0\]: options .*, expected 2 to 9 different ones"):
        small.selections(replace(EPISODE, answers=answers), [(0, 1), order])


@pytest.mark.parametrize(("prompt", "grid"), [("input-from-inputs-v0", C), ("output-from-outputs-v0", D)])
def test_a_series_is_continued_by_the_querys_own_grid(chat, small, prompt, grid):
    for prompt_encoder in (chat(), small):
        (branch,) = prompt_encoder.tree(EPISODE, prompt).branches
        text = prompt_encoder.grid_encoder.encode(grid) + prompt_encoder.template.end
        assert branch.targets.tolist() == prompt_encoder.tokenizer(text, add_special_tokens=False).input_ids
        assert (branch.kinds == PROMPTS[prompt]).all()


def test_verdicts_and_choices_are_single_tokens(chat, small):
    for prompt_encoder, yes in ((chat(), "yes"), (small, "<yes>")):
        names = prompt_encoder.tokenizer.convert_ids_to_tokens([prompt_encoder.yes_id, *prompt_encoder.choice_ids])
        assert names == [yes, *"123456789"]
        assert prompt_encoder.no_id != prompt_encoder.yes_id
        assert prompt_encoder.tokenizer.decode([prompt_encoder.end_id]) == prompt_encoder.template.end


@pytest.mark.parametrize("prompt", ["output-from-examples-v1", VERIFY_V1, VERIFY_V0, "select-output-from-examples-v0"])
def test_learning_demonstrations_trains_their_outputs_and_ends_from_the_second_on(chat, small, nestings, prompt):
    for prompt_encoder in (small, *map(chat, nestings)):
        plain = prompt_encoder.tree(EPISODE, prompt)
        tree = prompt_encoder.tree(EPISODE, prompt, learn_demonstrations=True)
        assert (tree.prefix == plain.prefix).all() and (plain.prefix_targets == IGNORE).all()
        trained = np.flatnonzero(tree.prefix_targets != IGNORE)
        runs = np.split(trained, np.flatnonzero(np.diff(trained) > 1) + 1)
        assert len(runs) == 2
        for run, grid in zip(runs, (C, A), strict=True):
            assert (tree.prefix_targets[run] == tree.prefix[run + 1]).all()
            text = prompt_encoder.tokenizer.decode(tree.prefix_targets[run])
            written = prompt_encoder.grid_encoder.encode(grid)
            assert text.startswith(written)
            end = text[len(written) :]
            assert end == "<end>" if prompt_encoder is small else end.strip("\n") == "" and len(end) >= 1


def test_learning_demonstrations_leaves_a_task_with_one_alone(small):
    episode = replace(EPISODE, demonstrations=EPISODE.demonstrations[:1])
    assert (small.tree(episode, VERIFY_V1, learn_demonstrations=True).prefix_targets == IGNORE).all()


def test_the_default_encoder_of_each_vocabulary(chat, small):
    assert str(chat().grid_encoder) == "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
    assert str(small.grid_encoder) == "CompactGridEncoder()"


def test_an_encoder_may_be_given_as_an_object_or_as_its_string(qwen):
    made, read = PromptEncoder(qwen, ReplaceNumberEncoder()), PromptEncoder(qwen, "ReplaceNumberEncoder()")
    assert made.text(EPISODE, VERIFY_V1) == read.text(EPISODE, VERIFY_V1)


def test_the_compact_vocabulary_takes_its_own_encoder_only(compact):
    assert PromptEncoder(compact, CompactGridEncoder()).text(EPISODE, VERIFY_V1) == PromptEncoder(compact).text(
        EPISODE, VERIFY_V1
    )
    for encoder in (MinimalGridEncoder(), "RowNumberEncoder()"):
        with pytest.raises(DataError, match=r"^grid_encoder \w+\(.*\): a model with the compact vocabulary takes"):
            PromptEncoder(compact, encoder)


def test_a_base_models_tokenizer_gets_chatml(qwen, chat):
    bare = copy.deepcopy(qwen)
    bare.chat_template = None
    assert PromptEncoder(bare).text(EPISODE, VERIFY_V1) == chat().text(EPISODE, VERIFY_V1)


def test_a_template_and_its_arguments_are_taken_in_place_of_the_tokenizers(qwen):
    template = (
        "{% for m in messages %}{{ m.role | upper }}{{ mark }}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT{{ mark }}{% endif %}"
    )
    prompt_encoder = PromptEncoder(qwen, None, None, template, {"mark": ": "})
    assert prompt_encoder.text(EPISODE, VERIFY_V1, 1).endswith("<|im_end|>ASSISTANT: yes")
    # here a space of the template is part of an answer's first token
    assert prompt_encoder.tokenizer.decode(prompt_encoder.write(C)[:1]) == " ```"
    assert (prompt_encoder.read(prompt_encoder.write(C)) == C).all()
    ids = prompt_encoder.tree(EPISODE, VERIFY_V1).sequence(1).tolist()
    begun = [*prompt_encoder.opening(EPISODE), *prompt_encoder.write(D), prompt_encoder.end_id]
    assert ids[: len(begun)] == begun
    assert ids == qwen(prompt_encoder.text(EPISODE, VERIFY_V1, 1), add_special_tokens=False).input_ids
    assert prompt_encoder.conversation[1:] == ["<|im_end|>ASSISTANT: ", "<|im_end|>USER: "]
    with pytest.raises(DataError, match="data.chat_template: a model with the compact vocabulary takes none"):
        PromptEncoder(compact_tokenizer(), chat_template=template)


def test_a_tokenizer_that_writes_whole_prompts_in_another_way_than_pieces_is_taken_by_turns(qwen):
    odd = copy.deepcopy(qwen)
    odd.add_tokens(["10 "])
    prompt_encoder = PromptEncoder(odd)
    assert prompt_encoder.by_turns
    for i in range(2):
        whole = odd(prompt_encoder.text(EPISODE, VERIFY_V1, i), add_special_tokens=False).input_ids
        assert prompt_encoder.tree(EPISODE, VERIFY_V1).sequence(i).tolist() == whole


def test_a_verdict_of_two_tokens_is_refused(qwen, monkeypatch):
    monkeypatch.setattr(ChatTemplatePrompt, "yes", "yes indeed")
    with pytest.raises(DataError, match="writes 'yes indeed' in 2 tokens, one is needed"):
        PromptEncoder(qwen)


def test_templates_are_used_exactly_where_every_cell_is_one_token(chat, nestings):
    plain = {nesting for nesting in nestings if "Replace" not in nesting and "'a'" not in nesting}
    assert {nesting for nesting in nestings if chat(nesting)._parts.colour_ids is not None} >= plain
    assert chat("ReplaceNumberEncoder(symbols='０é٢d🟥!💠öß９')")._parts.colour_ids is None


@given(data=st.data())
def test_a_grid_by_template_has_the_ids_of_its_text(chat, small, nestings, grids, data):
    prompt_encoder = data.draw(st.sampled_from([small, *map(chat, nestings)]))
    grid = data.draw(grids())
    ids = prompt_encoder.tokenizer(prompt_encoder.grid_encoder.encode(grid), add_special_tokens=False).input_ids
    assert prompt_encoder.write(grid).tolist() == ids
    assert prompt_encoder.write(grid).tolist() == ids


def test_a_trees_arrays_are_its_own_and_not_the_memory_of_the_prompter(small):
    first = small.tree(EPISODE, VERIFY_V1)
    whole = first.sequence(0).tolist()
    for branch in first.branches:
        branch.tokens[:] = branch.targets[:] = 0
    first.prefix[:] = 0
    assert small.tree(EPISODE, VERIFY_V1).sequence(0).tolist() == whole


def test_a_prompter_goes_to_worker_processes(chat, small):
    for prompt_encoder in (chat(), small):
        tree = pickle.loads(pickle.dumps(prompt_encoder)).tree(EPISODE, VERIFY_V1)
        assert tree.sequence(1).tolist() == prompt_encoder.tree(EPISODE, VERIFY_V1).sequence(1).tolist()


def test_an_unknown_prompt_is_refused_in_one_line():
    with pytest.raises(DataError, match="prompt 'output': there is none of this name"):
        PromptEncoder(compact_tokenizer()).tree(EPISODE, "output")
