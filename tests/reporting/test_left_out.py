"""What a ranking writes about demonstration pairs that were left out."""

import json
import re
from pathlib import Path

import pytest

from lightning_arc.arc import Candidate, CandidatePool, Pair, Task, as_grid, leave_one_out, read_submission
from lightning_arc.inference.ranking_files import write_ranking
from lightning_arc.ranking.rankers import MajorityVote
from lightning_arc.ranking.scores import gather
from lightning_arc.reporting.page import digits


def test_left_out_pairs_are_marked_shown_without_themselves_and_never_submitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [Pair(as_grid([[i, i]]), as_grid([[i], [i]])) for i in range(4)]
    tasks = {"t": Task("t", tuple(pairs[:3]), tuple(pairs[3:]))}
    queries = {episode.key: episode for episode in leave_one_out(tasks["t"])}
    pool = CandidatePool()
    for key in queries:
        pool.add(key, Candidate(as_grid([[9, key.index]])))
        pool.add(key, Candidate(queries[key].output, 2))
    write_ranking(tmp_path, tasks, queries, gather(queries, pool, ()), MajorityVote())
    assert (
        "1 test input and 3 demonstration pairs, the right output is among the candidates of 4"
        in capsys.readouterr().out
    )

    lines = [json.loads(line) for line in (tmp_path / "ranking.jsonl").read_text().splitlines()]
    assert [(line.get("split"), line["test_index"]) for line in lines] == [*(("train", i) for i in range(3)), (None, 0)]
    assert list(lines[-1]) == ["task_id", "test_index", "candidates"]
    assert all(line["candidates"][0]["correct"] for line in lines)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["n_tests"], metrics["n_solvable"], metrics["methods"]["vote"]["top1"]) == (4, 4, 1.0)
    (submitted,) = read_submission(tmp_path / "submission.json", tasks)["t"]
    assert [grid.tolist() for grid in submitted] == [[[3], [3]], [[9, 0]]]

    page = (tmp_path / "report.html").read_text()
    assert "<p>1 test input and 3 demonstration pairs; the right output is" in page
    tests = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["tests"]
    assert [(test["split"], test["index"]) for test in tests] == [*(("train", i) for i in range(3)), ("test", 0)]
    for i, test in enumerate(tests):
        others = [[digits(pair.input), digits(pair.output)] for k, pair in enumerate(pairs) if k != i]
        assert sorted(test["demos"]) == sorted(others)
        assert test["input"] == digits(pairs[i].input)
