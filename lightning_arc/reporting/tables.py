"""Tables of methods beside each other, for a terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 120
"""Least width in columns where the output is no terminal; a terminal's own width is used."""

GAP = 2
"""Columns between two texts."""

TITLES = (
    "top-1",
    "top-2",
    "top-2 over voting",
    "MRR",
    "AUROC",
    "ECE",
    "score",
    "expected (calibrated)",
    "views",
    "tokens",
    "seconds",
)
"""Titles of the texts that `figures` returns, in their order."""


def figures(entry: Mapping[str, Any]) -> list[str]:
    """Return a method's figures as text, ``-`` where unknown or not applicable.

    Args:
        entry: as `score_rankings` returns it.

    Returns:
        One text per title; 95% intervals stand on a second line, and tokens of test-time training behind a plus sign.
    """
    scored = bool(entry["views"])
    return [
        share(entry["top1"], entry["top1_ci"]),
        share(entry["top2"], entry["top2_ci"]),
        share(entry.get("top2_minus_vote"), entry.get("top2_minus_vote_ci"), "+"),
        *(number(entry[name], 3) for name in ("mrr", "auroc_within", "ece")),
        *(number(entry[name], 1) for name in ("score", "expected_score")),
        f"{entry['views']:.3g}" if scored else "-",
        _tokens(entry) if scored else "-",
        f"{entry['seconds']:,.{0 if entry['seconds'] >= 1000 else 1}f}" if scored else "-",
    ]


def figure_rows(name: str, entry: Mapping[str, Any]) -> list[list[str]]:
    """Return a method's row; and, where a model judged only some test inputs, a second one of its figures over those.

    Args:
        name: what the first cell says.
        entry: as `score_rankings` returns it.
    """
    rows = [[name, *figures(entry)]]
    judged = entry.get("judged")
    if judged and judged["n_tests"] < judged["n_with_candidates"] and judged["top1"] is not None:
        unknown = {"score": None, "expected_score": None, "views": 0, "seconds": 0}
        label = f"{judged['n_tests']} of {judged['n_with_candidates']} judged\n{judged['n_solvable']} solvable"
        rows.append([label, *figures({**judged, **unknown})])
    return rows


def print_table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
    """Print a table without the columns in which no row has a figure, in several parts below each other if too wide.

    Args:
        title: title of the table.
        names: titles of the columns; those that are not in `TITLES` hold words, which may be folded.
        rows: texts, one per column; further lines of a text are dimmed.
        caption: one or more lines below the table.
    """
    console = Console()
    console = console if console.is_terminal else Console(width=max(console.width, WIDTH))
    shown = filled_columns(rows)
    words = [i for i in shown if names[i] not in TITLES]
    cells = {i: [names[i].replace(" ", "\n"), *(row[i] for row in rows)] for i in shown}
    least = {i: max(len(word) for text in cells[i] for word in text.split()) for i in words}
    room = console.width - sum(GAP + width for width in least.values())
    parts: list[list[int]] = [[]]
    for i in (i for i in shown if names[i] in TITLES):
        if parts[-1] and _width(cells, [*parts[-1], i]) > room:
            parts.append([])
        parts[-1].append(i)
    # The table's own title and caption would be folded to its width.
    console.print(Text(title, style="bold"))
    for part in parts:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), show_edge=False)
        for i in [*words, *part]:
            kind = {"min_width": least[i]} if i in words else {"justify": "right", "no_wrap": True}
            table.add_column(cells[i][0], **kind)
        for row in rows:
            table.add_row(*(_cell(row[i]) for i in [*words, *part]))
        console.print(table)
        console.print()
    console.print(Text(caption))


def markdown(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown, a line a row, without the columns in which no row has a figure."""
    shown = filled_columns(rows)
    lines = [[names[i] for i in shown], ["---:" if names[i] in TITLES else "---" for i in shown]]
    lines += [[_in_brackets(row[i]) for i in shown] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def filled_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the places of the columns in which some row has more than a dash."""
    return [i for i, column in enumerate(zip(*rows, strict=True)) if any(text != "-" for text in column)]


def share(value: float | None, interval: Sequence[float] | None, sign: str = "") -> str:
    """Return a share in percent, and its interval on a second line."""
    if value is None or interval is None:
        return "-"
    between = ", " if sign else "-"
    return f"{100 * value:{sign}.1f}%\n{between.join(f'{100 * x:{sign}.1f}' for x in interval)}"


def number(value: float | None, digits: int) -> str:
    """Return a number with so many decimals."""
    return "-" if value is None else f"{value:.{digits}f}"


def short(count: int, trim: bool = False) -> str:
    """Return a count with three significant digits, such as 12.3M; ``trim`` drops trailing zeros of decimals."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        scaled = float(f"{count / size:.3g}")
        if count >= 1000 and scaled >= 1:
            text = f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}"
            return (text.rstrip("0").rstrip(".") if trim and "." in text else text) + letter
    return str(count)


def _tokens(entry: Mapping[str, Any]) -> str:
    scoring, training = entry["prefix_tokens"] + entry["branch_tokens"], entry.get("test_time_tokens", 0)
    return short(scoring) + (f"\n+{short(training)}" if training else "")


def _width(cells: Mapping[int, Sequence[str]], columns: Sequence[int]) -> int:
    return sum(GAP + max(len(line) for text in cells[i] for line in text.splitlines()) for i in columns)


def _cell(text: str) -> Text:
    first, _, second = text.partition("\n")
    return Text.assemble(first, ("\n" + second, "dim")) if second else Text(first)


def _in_brackets(text: str) -> str:
    first, _, second = text.replace("|", "\\|").partition("\n")
    return f"{first} ({second})" if second else first
