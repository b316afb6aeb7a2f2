"""Charts outside of a page are whole: colours, titles and legends in one SVG."""

from xml.etree import ElementTree

from lightning_arc.reporting.chart_files import chart_svg, style
from lightning_arc.reporting.charts import Axis, Chart, draw_chart, legend, line, line_chart, percent_axis

SVG = "{http://www.w3.org/2000/svg}"


def chart(title: str) -> Chart:
    x, y = Axis("steps", 0, 10), percent_axis("accuracy <top-1>")
    parts = line(0, [(x.across(n), y.up(n / 10)) for n in range(10)], [str(n) for n in range(10)])
    return Chart(title, draw_chart(title, x, y, parts), ("steps", "accuracy"), [])


def test_charts_stand_beside_each_other_with_titles_and_names():
    both = [(chart("one & two"), legend(["a < b", "c"], "voting")), (chart("three"), "")]
    root = ElementTree.fromstring(chart_svg(both))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"one & two", "three", "a < b", "c", "voting", "accuracy <top-1>"} <= set(texts)
    pictures = [e for e in root if e.tag == f"{SVG}svg"]
    places = [(e.get("x"), e.get("y")) for e in pictures if e.get("class") == "chart"]
    assert len(set(places)) == 2 and all(e.get("width") and e.get("height") for e in pictures)


def test_every_colour_is_filled_in_and_every_rule_is_for_these_charts_alone():
    rules = [rule for rule in style().split("}") if rule.strip()]
    assert "var(" not in style() and "stroke: #1668b8" in style()
    assert all(name.strip().startswith(".arc-charts ") for rule in rules for name in rule.split("{")[0].split(","))


def test_a_line_chart_has_every_point_and_keeps_those_beyond_an_axis_inside():
    x, y = Axis("step", 0, 100), Axis("loss", 0, 2)
    chart, names = line_chart("loss", x, y, {"training": [(0, 5.0), (50, 1.0)], "validation": [(100, 0.5)]})
    assert [row[:2] for row in chart.rows] == [["training", "0"], ["training", "50"], ["validation", "100"]]
    assert f"M{x.across(0):.1f},{y.up(2):.1f}L{x.across(50):.1f},{y.up(1):.1f}" in chart.svg
    assert "validation" in names and not line_chart("loss", x, y, {"training": []})[1]
