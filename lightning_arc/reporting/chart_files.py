"""Charts outside of a page: a single SVG with its colours, titles and legends, for notebooks and files."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from lightning_arc.reporting.charts import HEIGHT, LEFT, WIDTH, Chart
from lightning_arc.reporting.page import TEMPLATES

TITLE, KEY, KEY_WIDTH, KEY_HEIGHT = 26, 20, 30, 12
"""Heights of a title and of a line of the legend; size of the sample in front of a name."""

_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_VARIABLE = re.compile(r"(--[\w-]+):\s*([^;]+);")


def chart_svg(charts: Sequence[tuple[Chart, str]]) -> str:
    """Return charts beside each other as one SVG that needs no style sheet, on a white ground.

    Args:
        charts: each with its legend, as `legend` returns it; an empty text for none.
    """
    keys = [list(ElementTree.fromstring(legend)) if legend else [] for _, legend in charts]
    width = WIDTH * len(charts)
    height = TITLE + HEIGHT + KEY * max(map(len, keys), default=0)
    size = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "arc-charts"} | size)
    ElementTree.SubElement(root, "style").text = style()
    ElementTree.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    for number, ((chart, _), named) in enumerate(zip(charts, keys, strict=True)):
        left = WIDTH * number
        _text(root, left + LEFT, TITLE - 8, chart.title, "title")
        picture = ElementTree.fromstring(chart.svg)
        root.append(_placed(picture, left, TITLE, WIDTH, HEIGHT))
        for row, item in enumerate(named):
            top = TITLE + HEIGHT + KEY * row
            sample = item[0]
            name, sample.tail = sample.tail or "", None
            root.append(_placed(sample, left + LEFT, top, KEY_WIDTH, KEY_HEIGHT))
            _text(root, left + LEFT + KEY_WIDTH + 8, top + KEY_HEIGHT - 1, name)
    return ElementTree.tostring(root, encoding="unicode")


def style() -> str:
    """Return the page's style rules for charts in light mode, with colours filled in, for a standalone SVG."""
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    by_day = dict(_VARIABLE.findall(css[: css.index("@media")]))
    rules = [".arc-charts text { font: 12px system-ui, sans-serif; }"]
    rules.append(".arc-charts text.title { font-weight: 600; font-size: 13px; }")
    for selectors, body in _RULE.findall(css[css.index("/* charts */") : css.index("/* controls */")]):
        if "fill:" in body or "stroke" in body:
            names = ", ".join(f".arc-charts {name.strip()}" for name in selectors.split("*/")[-1].split(","))
            rules.append(f"{names} {{{body}}}")
    return re.sub(r"var\((--[\w-]+)\)", lambda match: by_day[match[1]], "\n".join(rules))


def _placed(picture: ElementTree.Element, x: int, y: int, width: int, height: int) -> ElementTree.Element:
    for name, value in {"x": x, "y": y, "width": width, "height": height, "overflow": "visible"}.items():
        picture.set(name, str(value))
    return picture


def _text(root: ElementTree.Element, x: int, y: int, text: str, kind: str = "") -> None:
    place = {"x": str(x), "y": str(y), "fill": "#1d1d20"} | ({"class": kind} if kind else {})
    ElementTree.SubElement(root, "text", place).text = text
