"""Grid positions: those that a plain reading of the whole text gives, whatever the encoder, tokenizer and prompt."""

import json
import pickle
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from lightning_arc.arc.grid import as_grid
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey
from lightning_arc.data.queries import opening_tree
from lightning_arc.errors import DataError
from lightning_arc.prompt.positions import has_grid_positions, model_has_grid_positions
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS
from lightning_arc.prompt.vocabulary import prompt_vocabulary

RNG = np.random.default_rng(0)
NAMES = st.sampled_from(sorted(PROMPTS))
VERIFY = "verify-output-from-examples-v1"
BY_TURNS = (
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "GridCodeBlockEncoder(RepeatNumberEncoder(2))",
    "RowNumberEncoder(GridWithSeparationEncoder(' '))",
    "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder()))",
    "GridShapeEncoder(ReplaceNumberEncoder(symbols='零一二三四五六七八九'))",
)


def drawn(*shapes) -> list:
    return [as_grid(RNG.integers(10, size=shape)) for shape in shapes]


def large() -> Episode:
    """An episode whose grids have rows of one and of two digits."""
    grids = drawn((12, 3), (30, 11), (1, 30), (11, 3), (10, 10), (30, 30), (2, 2))
    answers = (
        LabeledCandidate(grids[5], True, 0),
        LabeledCandidate(grids[6], False, 1),
        LabeledCandidate(grids[0], False, 2),
    )
    pairs = (Pair(*grids[:2]), Pair(*grids[2:4]))
    return Episode(PairKey("large", "test", 0), pairs, grids[4], grids[5], answers, "def f(g):\n    return g\n")


LARGE = large()


def plain(prompt_encoder: PromptEncoder, episode: Episode, prompt: str, i: int) -> list[tuple[int, int, int]]:
    """The plain way: number, row, and place in the row of every token of a branch's whole text, one after another."""
    template = prompt_encoder.template
    rendered = template.render(episode, prompt)
    branch, text, spans = rendered.branches[i], "", []
    for segment in (*rendered.prefix, *([branch.written] if branch.written else []), *branch.shown):
        if segment.grid is not None:
            spans.append((len(text), len(text) + len(template.encoder.encode(segment.grid))))
        text += template.text_of([segment])
    whole = template.text(rendered, i)
    assert whole.startswith(text)
    made = prompt_encoder.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    found, inside, reached, line_over = [], -1, 0, False
    number = row = place = 0
    mark = template.encoder.row_mark
    for start, end in made.offset_mapping:
        reached = max(reached, end)
        grid = next((n for n, (first, stop) in enumerate(spans) if first < reached <= stop), None)
        at = 2 * sum(stop < reached for _, stop in spans) if grid is None else 2 * grid + 1
        begins = line_over if mark == "\n" else mark in whole[start:end]
        if at != number:
            number, row, place = at, 0, 0
        elif grid is not None and begins:
            row, place = row + 1, 0
        found.append((number, row, place))
        place, line_over = place + 1, "\n" in whole[start:end]
        inside = grid
    assert inside is None
    return found


def assert_plain(prompt_encoder: PromptEncoder, episode: Episode, prompt: str, shifts: dict[int, int]) -> None:
    """Check every branch; rows of a grid begin a few columns later where their numbers are shorter, always the same."""
    tree = prompt_encoder.tree(episode, prompt)
    for i, branch in enumerate(tree.branches):
        own = np.concatenate([tree.positions, branch.positions])
        assert own.dtype == np.int32 and own.shape == (len(tree.prefix) + len(branch.tokens), 3)
        expected = np.array(plain(prompt_encoder, episode, prompt, i))[: len(own)]
        assert (own[:, :2] == expected[:, :2]).all()
        later, in_grid = own[:, 2] - expected[:, 2], own[:, 0] % 2 == 1
        assert (later[~in_grid] == 0).all()
        for row, shift in set(zip(own[in_grid, 1].tolist(), later[in_grid].tolist(), strict=True)):
            assert shifts.setdefault(row, shift) == shift and 0 <= shift <= 2
        steps = np.diff(own, axis=0)
        forward = np.where(steps[:, 0] != 0, steps[:, 0], np.where(steps[:, 1] != 0, steps[:, 1], steps[:, 2]))
        assert (forward > 0).all()  # tokens are distinct, and in the order of grid, row and column


@pytest.fixture(scope="module")
def chat(qwen):
    """A function that gives the prompter of Qwen's tokenizer with a grid encoder, and what is known of its rows."""
    return cache(lambda encoder: (PromptEncoder(qwen, encoder, grid_positions=True), {}))


@settings(max_examples=25)
@given(data=st.data())
def test_every_token_has_the_positions_of_its_whole_text(chat, nestings, episodes, data):
    encoder = data.draw(st.sampled_from(nestings))
    assert_plain(*chat(encoder)[:1], data.draw(episodes()), data.draw(NAMES), chat(encoder)[1])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_large_grids_too(chat, nestings, prompt):
    for encoder in nestings:
        prompt_encoder, shifts = chat(encoder)
        assert_plain(prompt_encoder, LARGE, prompt, shifts)


@pytest.mark.parametrize("prompt", [name for name, kind in PROMPTS.items() if kind not in FROM_CODE])
def test_the_compact_vocabulary_has_them(compact, prompt):
    assert_plain(PromptEncoder(compact, grid_positions=True), LARGE, prompt, {})


@pytest.mark.parametrize(("name", "encoder"), [("smollm", e) for e in BY_TURNS] + [("llama", BY_TURNS[3])])
def test_tokenizers_that_need_whole_turns_have_them(small_tokenizer, name, encoder):
    prompt_encoder, shifts = PromptEncoder(small_tokenizer(name), encoder, grid_positions=True), {}
    assert prompt_encoder.by_turns
    for prompt in PROMPTS:
        assert_plain(prompt_encoder, LARGE, prompt, shifts)


def cells(prompt_encoder: PromptEncoder, height: int, width: int) -> np.ndarray:
    """``(height, width, repeats, 2)`` rows and columns of the cells of a grid."""
    template = prompt_encoder.grid_template(height, width)
    return prompt_encoder.rows(template.ids)[template.cells].reshape(height, width, template.repeats, 2)


def test_the_same_cell_has_the_same_row_and_column_in_every_grid(chat, nestings, compact):
    prompters = [chat(encoder)[0] for encoder in nestings if encoder != "GridCodeBlockEncoder(CompactGridEncoder())"]
    for prompt_encoder in (*prompters, PromptEncoder(compact, grid_positions=True)):
        if prompt_encoder.colour_ids is None:
            continue
        whole = cells(prompt_encoder, 30, 30)
        assert (whole[..., 1] == whole[:1, ..., 1]).all()  # columns are straight
        assert (np.diff(whole[:, 0, 0, 0]) == 1).all() and (whole[..., 0] == whole[:, :1, :1, 0]).all()
        for height, width in ((1, 1), (9, 10), (10, 9), (12, 3), (30, 2)):
            assert (cells(prompt_encoder, height, width) == whole[:height, :width]).all()


def test_an_output_lies_two_behind_its_input_with_the_same_rows_and_columns(chat, compact):
    grid, query = drawn((12, 9), (3, 4))
    answers = (LabeledCandidate(query, True, 0), LabeledCandidate(query.T, False, 1))
    episode = Episode(PairKey("a", "test", 0), (Pair(grid, grid),) * 2, query, query, answers)
    for prompt_encoder in (chat(BY_TURNS[0])[0], PromptEncoder(compact, grid_positions=True)):
        tree = prompt_encoder.tree(episode, VERIFY)
        own = np.concatenate([tree.positions, tree.branches[0].positions])
        for number in (1, 5, 9):
            shown, written = (own[own[:, 0] == n][:, 1:] for n in (number, number + 2))
            n = min(len(shown), len(written)) - 1  # the last token may be joined with what follows the grid
            assert n > 12 and (shown[:n] == written[:n]).all()
        assert own[:, 0].max() == 12


@pytest.mark.parametrize("encoder", BY_TURNS)
def test_what_is_written_token_by_token_has_the_positions_of_the_whole(chat, encoder):
    prompt_encoder, episode = chat(encoder)[0], LARGE
    ids, tree = prompt_encoder.write(episode.output), prompt_encoder.tree(LARGE, VERIFY)
    whole = prompt_encoder.rows(ids)
    for n in (1, 2, 5, 14, 15, 40, len(ids)):
        assert (prompt_encoder.rows(np.stack([ids[:n], ids[:n]]))[1, -1] == whole[n - 1]).all()
    opened = opening_tree(prompt_encoder, episode, 10_000)
    assert (opened.positions == tree.positions).all() and opened.prefix.tolist() == tree.prefix.tolist()
    assert (opened.branches[0].positions[0] == tree.branches[0].positions[0]).all()
    before = opened.branches[0].positions[-1, 0]
    judged = next(branch for branch in prompt_encoder.tree(episode, VERIFY).branches if branch.correct)
    assert (judged.positions[1 : len(ids) + 1] == np.insert(whole, 0, before + 1, axis=1)).all()


def test_openings_of_whole_turns_have_them(small_tokenizer):
    prompt_encoder = PromptEncoder(small_tokenizer("smollm"), BY_TURNS[1], grid_positions=True)
    opened, tree = opening_tree(prompt_encoder, LARGE, 10_000), prompt_encoder.tree(LARGE, "output-from-examples-v1")
    ids = np.concatenate([opened.prefix, opened.branches[0].tokens])
    own, whole = (np.concatenate([t.positions, t.branches[0].positions]) for t in (opened, tree))
    assert prompt_encoder.by_turns and tree.sequence(0)[: len(ids)].tolist() == ids.tolist()
    assert (own == whole[: len(ids)]).all()


def test_a_trimmed_vocabulary_changes_no_position(qwen):
    whole = PromptEncoder(qwen, grid_positions=True)
    trimmed = PromptEncoder(qwen, kept=prompt_vocabulary(whole), grid_positions=True)
    ours, theirs = (prompt_encoder.tree(LARGE, VERIFY) for prompt_encoder in (trimmed, whole))
    assert (ours.positions == theirs.positions).all()
    for one, other in zip(ours.branches, theirs.branches, strict=True):
        assert (one.positions == other.positions).all()


def test_a_prompter_in_another_process_gives_the_same(compact):
    prompt_encoder = PromptEncoder(compact, grid_positions=True)
    again = pickle.loads(pickle.dumps(prompt_encoder))
    assert (again.tree(LARGE, VERIFY).positions == prompt_encoder.tree(LARGE, VERIFY).positions).all()


def test_without_grid_positions_trees_have_none_and_are_the_same(compact):
    plain, placed = PromptEncoder(compact), PromptEncoder(compact, grid_positions=True)
    for prompt, kind in PROMPTS.items():
        if kind not in FROM_CODE:
            one, other = plain.tree(LARGE, prompt), placed.tree(LARGE, prompt)
            assert one.positions is None and all(branch.positions is None for branch in one.branches)
            assert other.positions is not None
            for i in range(len(one.branches)):
                assert one.sequence(i).tolist() == other.sequence(i).tolist()
    assert opening_tree(plain, LARGE, 10_000).positions is None


def test_a_models_folder_determines_its_positions(tmp_path):
    assert model_has_grid_positions(None, "grid") and not model_has_grid_positions(None, "sequence")
    assert model_has_grid_positions("bundled", "sequence")
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    assert not model_has_grid_positions(str(tmp_path), "grid")
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    AutoConfig.for_model("qwen3_5_text", rope_parameters=rope).save_pretrained(tmp_path)
    assert model_has_grid_positions(str(tmp_path), "sequence")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=f"^{tmp_path}: no configuration could be read: "):
        model_has_grid_positions(str(tmp_path), "sequence")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_parameters": {"mrope_section": [1, 1, 1]}}, True),
        ({"rope_scaling": {"mrope_section": [1, 1, 1]}}, True),
        ({"text_config": {"rope_parameters": {"mrope_section": [1, 1, 1]}}}, True),
        ({"rope_parameters": {"rope_type": "default"}}, False),
        ({"rope_scaling": None}, False),
        ({}, False),
    ],
)
def test_grid_positions_are_known_from_every_form_of_configuration(config, expected):
    assert has_grid_positions(json.loads(json.dumps(config))) == expected
