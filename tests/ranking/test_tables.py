"""Tables: what each figure looks like, and that no number is cut in a narrow terminal."""

import re
from typing import Any

import pytest

from lightning_arc.ranking.calibration import Temperature
from lightning_arc.ranking.metrics import score_methods
from lightning_arc.ranking.rankers import RANKERS, Verifier
from lightning_arc.reporting.tables import TITLES, figure_rows, figures, markdown, print_table, short

NAMES = ("method", *TITLES)


def rows(scores_of: Any, known: bool = True) -> list[list[str]]:
    right = [[True, False, False], [False, False, True]]
    evidence = [
        scores_of([[2, 1, 0], [2, 0, 1.5]], [[-1, -2, -3]] * 2, [1, 2, 3], correct if known else None, str(i))
        for i, correct in enumerate(right * 4)
    ]
    rankers = RANKERS | {"verifier": Verifier(Temperature())}
    return [[name, *figures(entry)] for name, entry in score_methods(evidence, rankers, "verifier")["methods"].items()]


def test_a_second_row_has_the_figures_over_judged_test_inputs_where_some_were_not(scores_of: Any) -> None:
    right = [True, False]
    evidence = [
        scores_of([[1, 0]], correct=right, task_id="a"),
        scores_of([], votes=[1, 2], correct=right, task_id="b"),
    ]
    whole = score_methods(evidence[:1], RANKERS, "verifier")["methods"]["verifier"]
    assert len(figure_rows("verifier", whole)) == 1
    first, second = figure_rows("verifier *", score_methods(evidence, RANKERS, "verifier")["methods"]["verifier"])
    first, second = (dict(zip(NAMES, row, strict=True)) for row in (first, second))
    assert (first["method"], first["top-1"]) == ("verifier *", "50.0%\n0.0-100.0")
    assert (second["method"], second["top-1"]) == ("1 of 2 judged\n1 solvable", "100.0%\n100.0-100.0")
    assert {second[name] for name in ("score", "expected (calibrated)", "views", "tokens", "seconds")} == {"-"}


def test_a_row_has_every_figure_of_a_method(scores_of: Any) -> None:
    vote, verifier, _ = (dict(zip(NAMES, row, strict=True)) for row in rows(scores_of))
    assert (vote["top-1"].split()[0], vote["MRR"], vote["score"]) == ("50.0%", "0.667", "4.0")
    assert {vote[name] for name in ("top-2 over voting", "views", "tokens", "seconds")} == {"-"}
    assert verifier["top-2 over voting"].startswith("+50.0%\n+") and verifier["top-2"] == "100.0%\n100.0-100.0"
    assert (verifier["views"], verifier["tokens"], verifier["seconds"]) == ("2", "2.08k", "8.0")
    assert (
        0 < float(verifier["expected (calibrated)"]) <= 8
        and 0 < float(verifier["AUROC"]) < 1
        and 0 < float(verifier["ECE"]) < 1
    )


@pytest.mark.parametrize("width", (40, 80, 120, 200))
def test_no_number_is_cut_however_narrow_the_terminal_is(
    scores_of: Any, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    table = rows(scores_of)
    print_table("what it is about", NAMES, table, "where it is")
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= width
    for row in table:
        for text in row:
            for line in text.splitlines():
                assert out.count(f"{line} ") + out.count(f"{line}\n") >= 1, line
    assert out.count("method") == 1 if width >= 120 else out.count("method") > 1


def test_unknown_outputs_leave_the_expected_score_alone(scores_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", NAMES, rows(scores_of, known=False), "caption")
    out = capsys.readouterr().out
    assert "(calibrated)" in out and "views" in out
    for title in ("top-1", "MRR", "AUROC", "ECE", "score"):
        assert title not in out


def test_markdown_has_a_line_a_row_and_intervals_in_brackets() -> None:
    made = markdown(("method", "top-1", "MRR"), [["a|b", "50.0%\n40.0-60.0", "-"], ["c", "-", "-"]])
    assert made == "| method | top-1 |\n| --- | ---: |\n| a\\|b | 50.0% (40.0-60.0) |\n| c | - |\n"


def test_counts_keep_three_digits() -> None:
    counts = (0, 999, 1000, 12_345, 123_456, 9_990_000, 2 * 10**10)
    assert [short(count) for count in counts] == ["0", "999", "1.00k", "12.3k", "123k", "9.99M", "20.0G"]
    near = (9_996, 99_949, 99_950, 999_499, 999_500, 999_999_999)
    assert [short(count) for count in near] == ["10.0k", "99.9k", "100k", "999k", "1.00M", "1.00G"]
