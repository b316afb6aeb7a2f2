"""The pages in a browser: what a reader sees, opens and hears, by day and by night, with and without a script."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lightning_arc.arc import Candidate, CandidatePool, Pair, PairKey, Task, as_grid, leave_one_out
from lightning_arc.inference.ranking_files import write_ranking
from lightning_arc.ranking.calibration import Temperature
from lightning_arc.ranking.rankers import RANKERS, Verifier
from lightning_arc.ranking.records import ScoringRequest as Request
from lightning_arc.ranking.records import ViewScores, no_answer
from lightning_arc.ranking.scores import CandidateScores, gather
from lightning_arc.reporting.comparison import Way, write_comparison
from lightning_arc.reporting.origin import Origin

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow

N_CANDIDATES = 14


def made() -> tuple[dict[str, Task], dict[PairKey, Any], list[CandidateScores]]:
    """Eight test inputs: the verifier is right in the first two, later in four, the last two lack the right output."""
    rng = np.random.default_rng(0)

    def grid(height: int, width: int) -> Any:
        return as_grid(rng.integers(0, 10, (height, width)))

    sizes = [(1, 1), (30, 30), (3, 4), (5, 5), (10, 2), (2, 10), (7, 7), (4, 4)]
    tasks, pool, records = {}, CandidatePool(), []
    for n, size in enumerate(sizes):
        output = grid(*size)
        task = Task(f"task{n}", (Pair(grid(2, 3), grid(3, 2)),) * 2, (Pair(grid(*size), output),))
        tasks[task.id], key = task, PairKey(task.id, "test", 0)
        if n < 6:
            pool.add(key, Candidate(output, 2))
        while len(pool[key]) < N_CANDIDATES:
            other = output.copy()
            row, column = rng.integers(size[0]), rng.integers(size[1])
            other[row, column] = (other[row, column] + rng.integers(1, 10)) % 10
            pool.add(
                key, Candidate(as_grid(other) if rng.random() < 0.8 and n else grid(2, 6), int(rng.integers(1, 9)))
            )
        for view in range(2 if n else 1):
            odds = rng.normal(-2, 1, N_CANDIDATES)
            odds[0] = 3.0 if n < 2 else -5.0
            records.append(ViewScores(key, view, odds.tolist(), (10 * odds).tolist(), 100, 200, 0.5))
    unread = PairKey("task7", "test", 0)
    records = [record for record in records if record.key != unread]
    records += [no_answer(Request(unread, view, tuple(range(N_CANDIDATES))), N_CANDIDATES, 99) for view in range(2)]
    queries = {e.key: e for task in tasks.values() for e in leave_one_out(task) if e.key.split == "test"}
    return tasks, queries, gather(queries, pool, records)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    tasks, queries, evidence = made()
    origin = Origin("bundled", None, "tasks", ("candidates.json",), "2", "Verifier()", "seed_everything: 0\n")
    write_ranking(folder, tasks, queries, evidence, Verifier(Temperature(0.5)), origin=origin)
    return folder / "report.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, queries, evidence = made()
    ways = [
        Way(name, "run" if ranker.kinds else None, 0.5, [ranker.rank(e) for e in evidence])
        for name, ranker in RANKERS.items()
    ]
    path = tmp_path_factory.mktemp("comparison") / "report.html"
    cells = [["-" if way.run is None else way.run, way.name, "50.0%\n40.0-60.0"] for way in ways]
    write_comparison(
        path, ["8 test inputs", "one is too long"], ("run", "ranker", "top-2"), cells, queries, evidence, ways
    )
    return path


@pytest.fixture
def opened(browser: "Chrome") -> Callable[..., "Chrome"]:
    """A function that opens a page, dark or light, wide or narrow."""

    def open_page(path: Path, dark: bool = False, width: int = 1400, script: bool = True) -> "Chrome":
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme, still]})
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        browser.get_log("browser")
        browser.get(path.as_uri())
        return browser

    return open_page


def do(browser: "Chrome", script: str, *arguments: Any) -> Any:
    """Run a script, and wait until what comes in sight is drawn."""
    result = browser.execute_script(script, *arguments)
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    return result


def choose(browser: "Chrome", control: str, value: Any) -> None:
    """Set a control as a reader does."""
    kind = "checked" if isinstance(value, bool) else "value"
    do(
        browser,
        f"const one = document.getElementById(arguments[0]); one.{kind} = arguments[1];"
        "one.dispatchEvent(new Event('input', {bubbles: true}))",
        control,
        value,
    )


def shown(browser: "Chrome") -> list[str]:
    return do(browser, "return [...document.querySelectorAll('article h3')].map((h) => h.textContent)")


def press(browser: "Chrome", *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()
    do(browser, "")


def faults(browser: "Chrome", axe: str) -> list[tuple[str, str]]:
    """What axe-core finds, each with an element."""
    browser.execute_script(axe)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    script = "axe.run(document, {runOnly: arguments[0]}).then((found) => arguments[1](found.violations))"
    found = browser.execute_async_script(script, tags)
    return [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found]


@pytest.mark.parametrize("dark", (False, True), ids=("light", "dark"))
@pytest.mark.parametrize("width", (1400, 500))
@pytest.mark.parametrize("page", ("report", "comparison"))
def test_axe_finds_nothing_and_nothing_runs_over_the_edge(
    opened: Any, axe: str, page: str, width: int, dark: bool, request: pytest.FixtureRequest
) -> None:
    browser = opened(request.getfixturevalue(page), dark, width)
    do(browser, "document.querySelectorAll('details').forEach((one) => (one.open = true))")
    do(browser, "document.getElementById('list').scrollIntoView()")
    assert faults(browser, axe) == []
    assert do(browser, "return document.documentElement.scrollWidth <= innerWidth")
    do(browser, "document.querySelectorAll('article .cell .zoom')[2].click()")
    assert do(browser, "return document.getElementById('viewer').open")
    assert faults(browser, axe) == []
    assert [line["message"] for line in browser.get_log("browser")] == []


def test_the_table_is_there_without_a_script(opened: Any, report: Path) -> None:
    from selenium.webdriver.common.by import By

    browser = opened(report, script=False)
    try:
        text = browser.find_element(By.TAG_NAME, "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "Grids are drawn by this page's script" in text
    for word in ("verifier", "likelihood", "top-2", "Reliability", "metrics.json", "bundled"):
        assert word in text, word


def test_test_inputs_are_filtered_ordered_and_searched(opened: Any, report: Path) -> None:
    browser = opened(report)
    names = [f"task{n} [0]" for n in range(8)]
    assert shown(browser) == names
    for value, expected in (("right", names[:2]), ("later", names[2:6]), ("absent", names[6:])):
        choose(browser, "status", value)
        assert shown(browser) == expected, value
    choose(browser, "status", "all")
    choose(browser, "which", "unjudged")
    assert shown(browser) == names[7:]
    choose(browser, "which", "all")
    choose(browser, "order", "size")
    assert shown(browser)[0] == names[0] and shown(browser)[-1] == names[1]
    choose(browser, "reverse", True)
    assert shown(browser)[0] == names[1]
    choose(browser, "search", "TASK3")
    assert shown(browser) == names[3:4]
    assert "1 of 8 test inputs shown" in browser.page_source
    head = do(browser, "return document.querySelector('article .head').textContent")
    assert "verifier 14" in head and "vote " in head and "right output comes later" in head


def test_the_keyboard_goes_to_the_next_the_previous_and_the_top(opened: Any, report: Path) -> None:
    browser = opened(report)

    def place() -> str:
        return do(browser, "return document.activeElement.id || document.activeElement.tagName")

    visited = []
    for key in "jjjkt":
        press(browser, key)
        visited.append(place())
    assert visited == ["test-task0-0", "test-task1-0", "test-task2-0", "test-task1-0", "H1"]
    assert do(browser, "return scrollY") == 0
    press(browser, "/")
    assert place() == "search"
    press(browser, "j")
    assert do(browser, "return document.getElementById('search').value") == "j"
    choose(browser, "search", "")
    choose(browser, "keys", False)
    do(browser, "document.querySelector('h1').focus()")
    press(browser, "j")
    assert place() == "H1"


def test_every_candidate_is_shown_opened_and_copied(opened: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened(report)
    choose(browser, "search", "task3")
    do(browser, "document.getElementById('list').scrollIntoView()")
    count = "return document.querySelectorAll('article .cell .zoom').length"
    assert do(browser, count) == 12  # the input, ten candidates, and the right one behind them
    do(browser, "document.querySelector('article .row + button').click()")
    assert do(browser, count) == 1 + N_CANDIDATES
    places = "return [...document.querySelectorAll('article .cell b')].map((one) => Number(one.textContent))"
    assert do(browser, places) == list(range(1, N_CANDIDATES + 1))
    do(browser, "document.querySelectorAll('article .cell .zoom')[1].focus()")
    press(browser, Keys.ENTER)
    title = "return document.getElementById('viewer-title').textContent"
    assert do(browser, title) == "task3 [0], candidate 1 of 14"
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert do(browser, title) == "task3 [0], candidate 3 of 14"
    facts = do(browser, "return document.querySelector('#viewer dl').textContent")
    for word in ("log-odds", "nats a grid", "±", "votes", "✗ no: "):
        assert word in facts, word
    do(browser, "navigator.clipboard.writeText = (text) => { window.copied = text; }")
    do(browser, "document.querySelector('#viewer .copy').click()")
    copied = json.loads(do(browser, "return window.copied"))
    line = json.loads((report.parent / "ranking.jsonl").read_text().splitlines()[3])["candidates"][2]
    assert copied["grid"] == line["grid"] and copied["votes"] == line["votes"] and copied["rank"] == 3
    assert copied["log_likelihood"] == pytest.approx(line["log_likelihood"], abs=1e-3)
    press(browser, Keys.ESCAPE)
    assert not do(browser, "return document.getElementById('viewer').open")


def marks(browser: "Chrome") -> Sequence[int]:
    """How many cells are marked in each candidate of the page."""
    script = "return [...document.querySelectorAll('article .cell svg')].map((one) => one.querySelector('.dark'))"
    return do(browser, script + ".map((path) => (path ? path.getAttribute('d').split('M').length - 1 : 0))")


def test_cells_that_differ_are_marked_numbers_shown_and_palettes_switched(opened: Any, report: Path) -> None:
    browser = opened(report)
    choose(browser, "search", "task3")
    do(browser, "document.getElementById('list').scrollIntoView()")
    _, _, evidence = made()
    right, ranking = evidence[3].candidates[0].grid, Verifier().rank(evidence[3])
    grids = [evidence[3].candidates[i].grid for i in ranking.order]
    for reference, other in (("right", right), ("first", grids[0])):
        choose(browser, "reference", reference)
        expected = [int((g != other).sum()) if g.shape == other.shape else 0 for g in [*grids[:10], grids[-1]]]
        if reference == "first":
            expected[-1] = 0  # the right one is not marked
        assert marks(browser) == [0, *expected]
    choose(browser, "reference", "nothing")
    assert not any(marks(browser))
    choose(browser, "numbers", True)
    texts = do(
        browser,
        "return [...document.querySelector('article .cell svg').querySelectorAll('text')].map((t) => t.textContent)",
    )
    assert sum(map(len, texts)) == 25
    before = do(browser, "return getComputedStyle(document.documentElement).getPropertyValue('--c1')")
    choose(browser, "palette", "safe")
    after = do(browser, "return getComputedStyle(document.documentElement).getPropertyValue('--c1')")
    assert (before, after) == ("#1e93ff", "#0631ff")


def test_two_ways_are_compared_and_others_are_chosen(opened: Any, comparison: Path) -> None:
    browser = opened(comparison)
    tally = "return [...document.querySelectorAll('#tally dt')].map((one) => Number(one.textContent))"
    static = do(browser, tally)
    _, _, evidence = made()
    for first, second in ((1, 0), (0, 2), (2, 2)):
        choose(browser, "first", str(first))
        choose(browser, "second", str(second))
        rankers = list(RANKERS.values())
        wins = []
        for e in evidence:
            if e.solvable:
                wins.append([0 in rankers[way].rank(e).order[:2] for way in (first, second)])
        expected = [wins.count(pair) for pair in ([True, False], [False, True], [True, True], [False, False])]
        assert do(browser, tally) == [*expected, 2]
        if (first, second) == (1, 0):
            assert static == [*expected, 2]
    choose(browser, "second", "0")
    choose(browser, "outcome", "absent")
    assert shown(browser) == ["task6 [0]", "task7 [0]"]


def test_a_page_of_many_candidates_answers_at_once(opened: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks, evidence = {}, []
    for n in range(419):
        output = as_grid(rng.integers(0, 10, (15, 15)))
        task = Task(f"task{n}", (Pair(output, output),) * 3, (Pair(output, output),))
        grids = [as_grid((output + k) % 10) for k in range(60)]
        key = PairKey(task.id, "test", 0)
        tasks[task.id] = task
        evidence.append(CandidateScores(key, tuple(map(Candidate, grids)), [k == 0 for k in range(60)]))
    queries = {e.key: e for task in tasks.values() for e in leave_one_out(task) if e.key.split == "test"}
    write_ranking(tmp_path, tasks, queries, evidence, RANKERS["vote"])
    begin = time.perf_counter()
    browser = opened(tmp_path / "report.html")
    assert len(shown(browser)) == 419
    choose(browser, "order", "margin")
    choose(browser, "search", "task41")
    assert len(shown(browser)) == 10
    assert time.perf_counter() - begin < 15  # about one second on two cores
