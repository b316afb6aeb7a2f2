"""Generation: outputs are written under every view; equal ones are one candidate, with votes and a likelihood."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Table

from lightning_arc.arc import Candidate, CandidatePool, PairKey, as_grid, same_grid, write_candidates, write_pool
from lightning_arc.augment.views import common_views
from lightning_arc.data.prediction import PredictionData
from lightning_arc.inference.predictor import GenerationBatch
from lightning_arc.inference.work import PredictionWork
from lightning_arc.model.answers import GeneratedView
from lightning_arc.prompt.grid_encoders import DecodeError
from lightning_arc.ranking.coverage import too_long
from lightning_arc.ranking.divergence import diverged_tasks, divergence_sentence


@dataclass(frozen=True)
class ViewAnswers:
    """The answers to a query under one view.

    Args:
        key: the query's pair.
        view: number of the view.
        answers: grids with the view undone: rows, votes and log-likelihood of each.
        malformed: answers that were no grid.
        tokens: tokens that went through the model.
        seconds: time the model took.
        diverged: whether the test-time training for it diverged, so that the untrained model wrote.
    """

    key: PairKey
    view: int
    answers: list[tuple[list[list[int]], int, float]]
    malformed: int
    tokens: int
    seconds: float
    diverged: bool = False

    @property
    def n_answers(self) -> int:
        """Number of answers, including malformed ones."""
        return sum(votes for _, votes, _ in self.answers) + self.malformed


class Generation(PredictionWork[GenerationBatch, ViewAnswers]):
    """Writes ``candidates.json`` (of test inputs) and ``candidates.parquet`` (of all pairs).

    Equal grids of all views are one candidate: it has a vote for each sample, and one for each view in which the search
    found it; its log-likelihood is the greatest of all views. Each view's answers stay in ``generated-RANK.jsonl``.
    """

    name, title, unit = "generated", "Generating", "answers"
    n_finished = 0

    @property
    def progress(self) -> tuple[int, int]:
        """Views that are done, and all of them, of this process."""
        n = self.trainer.world_size
        done = len({(r.key, r.view) for r in self.done if r.view < self.n_views}) // n
        return done + self.n_finished, -(-len(self.data.queries) * self.data.options.n_views // n)

    def note(self) -> str:
        """Return an empty text: results are counted at the end."""
        return ""

    def batches(self) -> Iterator[GenerationBatch]:
        """Yield the unfinished views of queries; a batch has one test-time training dataset."""
        data, trainer = self.data, self.trainer
        finished = {(record.key, record.view) for record in self.done}
        wanted = [(key, view) for key in data.queries for view in range(data.options.n_views)]
        wanted = [item for item in wanted if item not in finished]
        for dataset, items in _by_dataset(wanted, data).items():
            size = data.options.batch_size
            parts = [items[start : start + size] for start in range(0, len(items), size)]
            for part in parts[trainer.global_rank :: trainer.world_size]:
                self.n_finished += len(part)
                made = [found for key, view in part if (found := data.generation_tree(key, view)) is not None]
                if made:
                    requests, trees = zip(*made, strict=True)
                    yield GenerationBatch(data.collate(trees), requests, dataset)

    def step(self, batch: GenerationBatch) -> list[ViewAnswers]:
        """Return the grids that are written for a batch, the views undone."""
        return [self._undone(found) for found in self.predictor.generate(batch)]

    def _undone(self, found: GeneratedView) -> ViewAnswers:
        request, encoder = found.request, self.data.prompt_encoder
        view = common_views(request.view + 1, request.n_demonstrations, self.data.options.seed, request.key)[
            request.view
        ]
        answers, malformed = [], 0
        for written in found.answers:
            votes = max(written.count, 1)
            try:
                grid = encoder.read(written.tokens)
            except DecodeError:
                malformed += votes
                continue
            answers.append((view.invert_grid(grid).tolist(), votes, written.log_likelihood))
        costs = found.tokens, found.seconds
        return ViewAnswers(request.key, request.view, answers, malformed, *costs, found.diverged)

    def encode(self, record: ViewAnswers) -> dict[str, Any]:
        """Return the answers of a view as JSON holds them."""
        return asdict(record) | {"key": list(record.key), "seconds": round(record.seconds, 6)}

    def decode(self, value: Any) -> ViewAnswers | None:
        """Return the answers that a JSON value holds, ``None`` if it holds none."""
        try:
            task_id, split, index = value["key"]
            answers = [(grid, int(votes), float(likelihood)) for grid, votes, likelihood in value["answers"]]
            numbers = int(value["view"]), answers, int(value["malformed"]), int(value["tokens"])
            about = float(value["seconds"]), bool(value.get("diverged", False))
            return ViewAnswers(PairKey(str(task_id), str(split), int(index)), *numbers, *about)
        except (ValueError, KeyError, TypeError, OverflowError):
            return None

    def write(self, records: list[ViewAnswers]) -> None:
        """Write both files and print what is in them."""
        data, folder = self.data, self.folder
        by_view = {(record.key, record.view): record for record in records}
        pool = gather_answers(data.queries, list(by_view.values()), self.model.name_of_model)
        write_candidates(pool, data.tasks, folder / "candidates.json")
        write_pool(pool, folder / "candidates.parquet", data.tasks)
        rights = {key: episode.output for key, episode in data.queries.items() if episode.output is not None}
        found = sum(any(same_grid(c.grid, right) for c in pool[key]) for key, right in rights.items())
        proposed = sum(votes for record in by_view.values() for _, votes, _ in record.answers)
        malformed = sum(record.malformed for record in by_view.values())
        table = Table(show_header=False)
        without = data.queries.keys() - {key for key, _ in by_view}
        long = [key for key in without if data.generation_tree(key, 0) is None]
        if long:
            rank_zero_warn(f"{len(long)} of {len(data.queries)} queries are {too_long(data.options.max_seq_len)}")
        for name, value in {
            "queries": f"{len(data.queries):,}",
            "answers": f"{proposed + malformed:,}, of them {malformed:,} no grids",
            "distinct candidates": f"{pool.n_grids:,}",
            "known outputs among them": f"{found:,} of {len(rights):,}",
            "tokens": f"{sum(record.tokens for record in by_view.values()):,}",
            "seconds": f"{sum(record.seconds for record in by_view.values()):.1f}",
        }.items():
            table.add_row(name, value)
        Console().print(table)
        print(f"{'candidates:':<12}{(folder / 'candidates.json').absolute()}")
        print(f"{'pool:':<12}{(folder / 'candidates.parquet').absolute()}")
        if line := divergence_sentence(diverged_tasks(by_view.values())):
            print(line)


def _by_dataset(
    wanted: Sequence[tuple[PairKey, int]], data: PredictionData
) -> dict[PairKey | None, list[tuple[PairKey, int]]]:
    """Group views by the dataset that the model is trained on before them."""
    found: dict[PairKey | None, list[tuple[PairKey, int]]] = {}
    for key, view in wanted:
        found.setdefault(data.test_time_key(key), []).append((key, view))
    return found


def gather_answers(queries: Collection[PairKey], records: list[ViewAnswers], source: str) -> CandidatePool:
    """Gather the answers to every query as candidates, most votes first, then by likelihood.

    Args:
        queries: the pairs that were asked about; records of others are left out.
        records: one for each query and view.
        source: name of the model.
    """
    all_answers = CandidatePool()
    for record in sorted(records, key=lambda record: record.view):
        if record.key in queries:
            for rows, votes, log_likelihood in record.answers:
                all_answers.add(record.key, Candidate(as_grid(rows), votes, (source,), log_likelihood))
    pool = CandidatePool()
    for key in queries:
        pool.open(key)
        for candidate in sorted(all_answers[key], key=_most_votes_first):
            pool.add(key, candidate)
    return pool


def _most_votes_first(candidate: Candidate) -> tuple[int, float]:
    return -candidate.votes, 0.0 if candidate.log_likelihood is None else -candidate.log_likelihood
