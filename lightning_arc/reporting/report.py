"""The report of a ranking: one page that needs nothing else, for a person to look at."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lightning_arc.arc import Episode, Grid, PairKey
from lightning_arc.arc.io.files import whole_file
from lightning_arc.ranking.coverage import NOT_REACHED, Coverage, explain, explain_placeholders, too_long
from lightning_arc.ranking.divergence import told_of_divergence
from lightning_arc.ranking.rankers import Ranking
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.reporting.curve import STYLE as CURVE_STYLE
from lightning_arc.reporting.curve import curve_svg
from lightning_arc.reporting.drawing import grid_svg
from lightning_arc.reporting.tables import TITLES, figure_rows, share, told

SHOWN = 10
"""Candidates shown of each test input; the right one is always among them."""

ATTEMPTS = 2
"""Candidates of each test input that a submission holds."""

MEANING = {
    "MRR": "mean reciprocal rank of the right output",
    "AUROC": "share of a test input's wrong candidates that are below the right one, ties half: the area under the ROC "
    "curve within test inputs, in the mean",
    "ECE": "expected calibration error of p, in 15 bins",
    "score": "as ARC counts it: a point a task, shared by its test inputs, over all tasks",
    "expected (calibrated)": "the score that is expected: the sum of p over the candidates that are sent, of methods "
    "whose p was calibrated on training tasks",
    "views": "answered of a test input, in the mean",
}
"""What a column's title says when pointed at."""

STYLE = """
:root{color-scheme:light dark;--faint:#8883;--soft:#717171;--right:#12833f;--low:#a86b12;--paper:#fff;--ink:#1c1c1c}
@media(prefers-color-scheme:dark){:root{--soft:#9b9b9b;--right:#46c87a;--low:#e0a84a;--paper:#161618;--ink:#e8e8e8}}
body{font:15px/1.45 system-ui,sans-serif;background:var(--paper);color:var(--ink)}
body{max-width:76rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin:0 0 .4rem}h2{font-size:1.05rem;margin:0 .8rem 0 0;display:inline}
p{max-width:52rem}table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .65rem;border-bottom:1px solid var(--faint);text-align:right;vertical-align:top}
td{white-space:nowrap}.wide{overflow-x:auto}th{font-weight:500;color:var(--soft);vertical-align:bottom}
th:first-child,td:first-child{text-align:left}td small{color:var(--soft)}
.judged td{color:var(--soft)}
.chosen{font-weight:600}.right{color:var(--right)}.low{color:var(--low)}.none{color:var(--soft)}
nav{display:flex;flex-wrap:wrap;gap:.25rem;margin:1rem 0 2rem}
nav a{font:12px ui-monospace,monospace;text-decoration:none;padding:.1rem .4rem;border:1px solid;border-radius:3px}
section{border-top:1px solid var(--faint);padding:1rem 0 1.2rem}
summary{cursor:pointer;color:var(--soft);font-size:.85rem;margin:.5rem 0 0;width:max-content}
.row{display:flex;flex-wrap:wrap;gap:.9rem;align-items:flex-start;margin:.5rem 0 0}
.pair{display:flex;gap:.4rem;align-items:center;margin-right:.6rem;color:var(--soft)}
figure{margin:0;padding:.35rem;border:2px solid transparent;border-radius:5px;min-width:7.2rem}
figure.sent{background:var(--faint)}figure.right{border-color:var(--right)}
figcaption{font-size:.8rem;line-height:1.35;color:var(--ink);font-variant-numeric:tabular-nums;white-space:nowrap}
figcaption small{color:var(--soft)}figcaption .right{font-weight:600}
meter{display:block;width:110px;height:.55rem;margin:.1rem 0 .3rem}meter.unseen{visibility:hidden}
svg{display:block;outline:1px solid var(--faint)}
"""


def write_report(
    path: Path,
    queries: Mapping[PairKey, Episode],
    evidence: Sequence[CandidateScores],
    rankings: Sequence[Ranking],
    metrics: Mapping[str, Any],
    covered: Sequence[Coverage],
) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        queries: what was shown of each query.
        evidence: one per query.
        rankings: of the chosen method, one per query.
        metrics: what ``metrics.json`` holds.
        covered: what became of each query.
    """
    both = list(zip(evidence, rankings, strict=True))
    notes = [_missing(one, metrics["not_judged"]) for one in covered]
    links = "".join(f'<a class="{_place(e, r)[0]}" href="#{_anchor(e)}">{_name(e)}</a>' for e, r in both)
    sections = "".join(_section(queries[e.key], e, r, note) for (e, r), note in zip(both, notes, strict=True))
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Ranking of ARC candidates</title><style>{STYLE}{CURVE_STYLE}</style></head><body>"
        f"<h1>Ranking of ARC candidates</h1>{_summary(metrics)}<nav>{links}</nav>{sections}</body></html>\n"
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _summary(metrics: Mapping[str, Any]) -> str:
    chosen = escape(metrics["chosen"])
    count = _count(metrics["n_tests"], "test input")
    if metrics["n_solvable"] is None:
        text = f"{count}, whose outputs are unknown. The submission follows <b>{chosen}</b>."
    else:
        text = (
            f"{count}; the right output is among the candidates of <b>{metrics['n_solvable']}</b>. Accuracies are over "
            "those, in rows of judged ones over those of them that the model judged, with 95% bootstrap intervals over "
            "tasks; differences are paired. The submission, the order "
            f"and the scores below follow <b>{chosen}</b>; of every test input the shaded candidates are sent. "
            '<span class="right">Green</span>: the right output is one of them; <span class="low">amber</span>: it '
            'comes later; <span class="none">grey</span>: it is not among the candidates, or not known.'
        )
    missing = [*explain(metrics["not_judged"]), *explain_placeholders(metrics["submission"])]
    missing += [told_of_divergence(metrics.get("test_time", {}).get("diverged_tasks", []))]
    notes = "".join(f'<p class="low">{escape(sentence)}</p>' for sentence in missing if sentence)
    return f"<p>{text}</p>{_table(metrics)}{notes}{curve_svg(metrics['methods'])}"


def _table(metrics: Mapping[str, Any]) -> str:
    """Return the methods beside each other, without the columns in which none says anything."""
    entries = dict(metrics["methods"])
    if metrics["n_solvable"] is not None:
        entries = {"order of the file": metrics["file_order"]} | entries
    titles = ("method", *TITLES, "top-2 over the file's order")
    rows = [
        [*row, share(m.get("top2_minus_file"), m.get("top2_minus_file_ci"), "+")]
        for name, entry in entries.items()
        for row, m in zip(figure_rows(name, entry), (entry, entry.get("judged", {})), strict=False)
    ]
    shown = told(rows)
    heads = "".join(f'<th title="{MEANING.get(titles[i], "")}">{titles[i]}</th>' for i in shown)
    lines = ""
    for row in rows:
        kind = "chosen" if row[0] == metrics["chosen"] else "" if row[0] in entries else "judged"
        lines += f'<tr class="{kind}">'
        lines += "".join(f"<td>{_figure(row[i])}</td>" for i in shown) + "</tr>"
    return f'<div class="wide"><table><tr>{heads}</tr>{lines}</table></div>'


def _figure(text: str) -> str:
    first, _, second = escape(text).partition("\n")
    return f"{first}<br><small>{second}</small>" if second else first


def _missing(covered: Coverage, not_judged: Mapping[str, Any] | None) -> str:
    """Return what a query's heading says of verdicts that it lacks."""
    if not_judged is None or covered in ("judged", "not_asked"):
        return ""
    reason = too_long(not_judged["max_seq_len"]) if covered.endswith("too_long") else NOT_REACHED
    return f"{'judged in part, other views' if covered.startswith('partly') else 'not judged:'} {reason}"


def _section(query: Episode, evidence: CandidateScores, ranking: Ranking, missing: str) -> str:
    examples = "".join(
        f'<div class="pair">{grid_svg(p.input, 80)}→{grid_svg(p.output, 80)}</div>' for p in query.demonstrations
    )
    panels = [_plain("test input" if evidence.key.split == "test" else "left-out input", query.query)]
    if query.output is not None and not evidence.solvable:
        panels.append(_plain("right output", query.output))
    order = ranking.order.tolist()
    shown = [(n, i) for n, i in enumerate(order, 1) if n <= SHOWN or (evidence.correct and evidence.correct[i])]
    panels += [_candidate(n, i, evidence, ranking) for n, i in shown]
    if hidden := len(order) - len(shown):
        panels.append(f'<figure class="none">and {_count(hidden, "more candidate")}</figure>')
    colour, text = _place(evidence, ranking)
    missing = f'; <span class="low">{missing}</span>' if missing else ""
    return (
        f'<section id="{_anchor(evidence)}"><h2>{_name(evidence)}</h2><span class="{colour}">{text}</span>{missing}'
        f"<details open><summary>{_count(len(query.demonstrations), 'example')}</summary>"
        f'<div class="row">{examples}</div></details><div class="row">{"".join(panels)}</div></section>'
    )


def _plain(caption: str, grid: Grid) -> str:
    # The unseen bar keeps the grid at the height of those that have one.
    return f'<figure><figcaption>{caption}</figcaption><meter class="unseen"></meter>{grid_svg(grid)}</figure>'


def _candidate(rank: int, i: int, evidence: CandidateScores, ranking: Ranking) -> str:
    right, sent = bool(evidence.correct and evidence.correct[i]), evidence.key.split == "test" and rank <= ATTEMPTS
    score, error, p = float(ranking.score[i]), float(ranking.stderr[i]), float(ranking.p_correct[i])
    numbers = "not judged" if math.isnan(score) else f"{score:.2f}" + ("" if math.isnan(error) else f" ± {error:.2f}")
    bar = f'<meter value="{0 if math.isnan(p) else p:.3f}"></meter>'
    kinds = " ".join(kind for kind, is_so in (("right", right), ("sent", sent)) if is_so)
    return (
        f'<figure class="{kinds}"><figcaption>{rank}{" <span class=right>✓ right</span>" if right else ""}'
        f"{'' if math.isnan(p) else f' <small>p</small> {p:.2f}'}</figcaption>{bar}"
        f"{grid_svg(evidence.candidates[i].grid)}<figcaption><small>{numbers}<br>"
        f"{_count(evidence.candidates[i].votes, 'vote')}</small></figcaption></figure>"
    )


def _place(evidence: CandidateScores, ranking: Ranking) -> tuple[str, str]:
    """Return the class and the words that say where the right output came."""
    n = len(evidence.candidates)
    if not n:
        return "none", "no candidates"
    if evidence.correct is None:
        return "none", _count(n, "candidate")
    if not evidence.solvable:
        return "none", f"the right output is not among {_count(n, 'candidate')}"
    rank = 1 + next(n for n, i in enumerate(ranking.order) if evidence.correct[i])
    return "right" if rank <= ATTEMPTS else "low", f"the right output is number {rank} of {_count(n, 'candidate')}"


def _name(evidence: CandidateScores) -> str:
    left_out = "" if evidence.key.split == "test" else " demonstration"
    return f"{escape(evidence.key.task_id)}{left_out} [{evidence.key.index}]"


def _anchor(evidence: CandidateScores) -> str:
    left_out = "" if evidence.key.split == "test" else "-demonstration"
    return f"{escape(evidence.key.task_id)}{left_out}-{evidence.key.index}"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("" if n == 1 else "s")
