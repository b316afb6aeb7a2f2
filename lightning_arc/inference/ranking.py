"""Ranking: the scheduler's requests are scored until their order is settled, and the files are written."""

from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from lightning_arc.data.batch import TreeShape
from lightning_arc.data.prediction import PredictionData
from lightning_arc.inference.predictor import ScoringBatch
from lightning_arc.inference.ranking_files import all_views, write_ranking
from lightning_arc.inference.work import PredictionWork, batches_of_equal
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.typed import typed_trainer
from lightning_arc.ranking.records import ViewScores, decode_scores, encode_scores, no_answer
from lightning_arc.ranking.scheduler import RankingScheduler
from lightning_arc.ranking.scores import gather
from lightning_arc.reporting.origin import Origin, in_words


class CandidateRanking(PredictionWork[ScoringBatch, ViewScores]):
    """Writes ``submission.json``, ``ranking.jsonl``, ``metrics.json`` and ``report.html``.

    The scores stay beside them in ``evidence-RANK.jsonl``. A later run with another ranker or other stopping settings
    continues from them.
    """

    name, title, unit = "evidence", "Ranking", "candidates"

    def __init__(self, trainer: L.Trainer, model: ArcModel, data: PredictionData) -> None:
        self.stopping = model.stopping or all_views(data.options.n_views)
        super().__init__(trainer, model, data)
        self.scheduler = RankingScheduler(
            [e for e in gather(data.queries, data.candidates, ()) if e.candidates],
            model.ranker,
            self.stopping,
            trainer.global_rank,
            trainer.world_size,
            cost=None if self.stopping.max_tokens is None else data.cost,
            done=self.done,
        )

    @property
    def n_views(self) -> int:
        """Most views under which a test input is asked about."""
        return self.stopping.max_views

    def batches(self) -> Iterator[ScoringBatch]:
        """Yield the scheduler's requests; only those to one member, and with one dataset, share a batch."""
        data, scheduler = self.data, self.scheduler
        while (requests := scheduler.next(data.options.batch_size)) is not None:
            trees, scored = [], []
            for request in requests:
                tree, n = data.request_tree(request), len(data.candidates[request.key])
                if tree is None:
                    self.keep(no_answer(request, n, data.options.max_seq_len))
                else:
                    trees.append(tree)
                    scored.append((request, n))
            keys = [(request.member, data.test_time_key(request.key)) for request, _ in scored]
            for places in batches_of_equal(keys):
                trains, of_trees = keys[places[0]][1] is not None, [trees[i] for i in places]
                tokens = None if trains else sum(TreeShape.of(tree).n_tokens for tree in of_trees)
                if scheduler.time_is_up(len(places), tokens):
                    return
                of_batch, ns = zip(*(scored[i] for i in places), strict=True)
                yield ScoringBatch(data.collate(of_trees), of_batch, ns, *keys[places[0]])

    def step(self, batch: ScoringBatch) -> list[ViewScores]:
        """Return the scores of a batch."""
        return self.predictor.score(batch)

    def keep(self, record: ViewScores) -> None:
        """Keep scores, and pass them to the scheduler."""
        super().keep(record)
        self.scheduler.take(record)

    @property
    def progress(self) -> tuple[int, int]:
        """Views of this process's test inputs that are done, and all of them."""
        return self.scheduler.progress

    def note(self) -> str:
        """Return the accuracy so far, where outputs are known."""
        known = [e for e in self.scheduler.answered() if e.records and e.solvable]
        if not known:
            return ""
        hits = sum(e.any_right(self.model.ranker.rank(e).order[:2]) for e in known)
        return f"top-2 so far {hits / len(known):.1%} of {len(known)}"

    def write(self, records: list[ViewScores]) -> None:
        """Rank and write the four files."""
        data, ranker = self.data, self.model.ranker
        scores = gather(data.queries, data.candidates, records)
        about = self.stopping, data.passed_over, self._origin()
        write_ranking(self.folder, data.tasks, data.queries, scores, ranker, *about)

    def _origin(self) -> Origin:
        """Return the report's facts about this run."""
        options, model, stopping = self.data.options, self.model, self.model.stopping
        members = [model.adapter_path or model.model_path or "from scratch", *model.ensemble]
        until = f"{self.stopping.min_views} to {self.stopping.max_views}, until settled"
        saved = [each for each in typed_trainer(self.trainer).callbacks if isinstance(each, SaveConfigCallback)]
        return Origin(
            model=", ".join(map(str, members)),
            checkpoint=None if self.trainer.ckpt_path is None else str(self.trainer.ckpt_path),
            tasks=str(options.tasks),
            candidates=tuple(map(str, options.candidate_files)),
            views=str(options.n_views) if stopping is None else until,
            ranker=in_words(model.ranker),
            settings=saved[0].parser.dump(saved[0].config, skip_none=False) if saved else "",
        )

    def encode(self, record: ViewScores) -> dict[str, Any]:
        """Return scores as JSON holds them."""
        return encode_scores(record)

    def decode(self, value: Any) -> ViewScores | None:
        """Return the scores of a JSON value, ``None`` if it holds none."""
        return decode_scores(value)
