"""Grid encoders from their string form, read without evaluating it."""

import ast

from lightning_arc.errors import DataError
from lightning_arc.prompt.grid_encoders import ENCODERS, GridEncoder

MAX_LENGTH = 1000
"""Most characters of an encoder's string form; numbers in it are then short enough to be printed."""


def parse_encoder(text: str) -> GridEncoder:
    """Build an encoder from a string such as ``GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))``.

    Args:
        text: calls of encoder names whose arguments are encoders, strings or integers.

    Raises:
        DataError: if it is anything else.
    """
    if len(text) > MAX_LENGTH:
        raise DataError(f"grid_encoder {text!r:.100}: {len(text)} characters, expected at most {MAX_LENGTH}")
    try:
        encoder = _build(ast.parse(text.strip(), mode="eval").body, text)
    except DataError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"grid_encoder {text!r:.100}: not of the form Encoder(Encoder())") from error
    if not isinstance(encoder, GridEncoder):
        raise DataError(f"grid_encoder {text!r:.100}: expected an encoder, found {encoder!r:.40}")
    return encoder


def _build(node: ast.expr, text: str) -> GridEncoder | str | int:
    if isinstance(node, ast.Constant) and (type(node.value) is str or type(node.value) is int):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in ENCODERS:
            raise DataError(
                f"grid_encoder {text!r:.100}: no encoder {node.func.id!r:.40}, there are {', '.join(ENCODERS)}"
            )
        arguments = [_build(a, text) for a in node.args]
        named = {k.arg: _build(k.value, text) for k in node.keywords if k.arg}
        if len(named) == len(node.keywords):
            try:
                return ENCODERS[node.func.id](*arguments, **named)
            except (TypeError, AttributeError) as error:
                raise DataError(f"grid_encoder {text!r:.100}: {node.func.id}: {str(error):.200}") from error
    raise DataError(f"grid_encoder {text!r:.100}: only encoders, strings and integers may stand in it")
