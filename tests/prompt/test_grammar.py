"""The grammar of grids, for every encoder in a chat."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_arc.errors import DataError
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.prompt_encoder import PromptEncoder


@pytest.fixture(scope="module")
def grammars(qwen):
    """A function that gives prompter and grammar of an encoder."""

    @cache
    def made(nesting):
        prompt_encoder = PromptEncoder(qwen, nesting)
        return prompt_encoder, Grammar(prompt_encoder)

    return made


NESTINGS = [
    "MinimalGridEncoder()",
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "GridCodeBlockEncoder(RowNumberEncoder(RepeatNumberEncoder(3)))",
    "RowNumberEncoder(GridWithSeparationEncoder('|'))",
]


@settings(max_examples=25)
@given(data=st.data(), nesting=st.sampled_from(NESTINGS))
def test_whatever_the_grammar_allows_at_every_step_is_a_grid(grammars, data, nesting):
    prompt_encoder, grammar = grammars(nesting)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shapes, before, tokens = grammar.start(1, data.draw(st.integers(40, 3000))), np.array([-1]), []
    while True:
        allowed = np.flatnonzero(grammar.allowed(len(tokens), shapes, before, 160_000)[0])
        token = int(allowed[rng.integers(len(allowed))])
        shapes = grammar.advance(len(tokens), shapes, before, np.array([token]))
        if token == prompt_encoder.end_id:
            break
        before = np.array([token])
        tokens.append(token)
    grid = prompt_encoder.grid_encoder.decode(prompt_encoder.tokenizer.decode(tokens))
    assert prompt_encoder.write(grid).tolist() == tokens


@settings(max_examples=25)
@given(data=st.data(), nesting=st.sampled_from(NESTINGS))
def test_every_grid_is_allowed_at_every_step(grammars, grids, data, nesting):
    prompt_encoder, grammar = grammars(nesting)
    tokens = [*prompt_encoder.write(data.draw(grids())).tolist(), prompt_encoder.end_id]
    shapes, before = grammar.start(1, len(tokens)), np.array([-1])
    for place, token in enumerate(tokens):
        assert grammar.allowed(place, shapes, before, 160_000)[0, token]
        shapes, before = grammar.advance(place, shapes, before, np.array([token])), np.array([token])
    assert shapes.sum() == 1


def test_an_encoder_whose_cells_are_several_tokens_is_refused(qwen):
    with pytest.raises(DataError, match="constrained: ReplaceNumberEncoder.* writes a cell in several tokens"):
        Grammar(PromptEncoder(qwen, "ReplaceNumberEncoder(symbols='０é٢d🟥!💠öß９')"))
