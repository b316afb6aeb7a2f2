"""Pages: Jinja templates rendered as one self-contained HTML file."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lightning_arc.arc import Grid
from lightning_arc.arc.io.files import whole_file
from lightning_arc.reporting.drawing import PALETTES, digit_ink

TEMPLATES = Path(__file__).parent / "templates"
"""Folder of the templates, style sheets and scripts."""

INKS = {name: [digit_ink(colour) for colour in colours] for name, colours in PALETTES.items()}
"""Colours of the numbers in cells, by palette."""


def write_page(path: Path, template: str, data: Any, **values: Any) -> None:
    """Write a page.

    Args:
        path: the HTML file.
        template: name of the template.
        data: data for the page's script, as JSON holds it.
        values: variables of the template.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {}  # keys keep their order
    environment.globals |= {"file": _file, "palettes": PALETTES, "inks": INKS}
    page = environment.get_template(template).render(data=script_json(data), **values)
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def script_json(value: Any) -> Markup:
    """Return a value as compact JSON that may stand in a script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def digits(grid: Grid) -> str:
    """Return a grid as a string of digits, rows parted by slashes: ``012/345``."""
    return "/".join("".join(map(str, row)) for row in grid.tolist())


def _file(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
