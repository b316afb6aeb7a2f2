"""What is measured while a model trains: how well it writes, how well it judges, and how well it ranks candidates."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from lightning_arc.data.batch import TreeShape
from lightning_arc.model.scoring import BranchScores
from lightning_arc.prompt.tree import PromptKind
from lightning_arc.ranking.rankers import RANKERS, Ranker
from lightning_arc.ranking.records import ViewScores
from lightning_arc.ranking.scores import CandidateScores

VERIFY = PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES.label


class ValidationMetrics(nn.Module):
    """Adds up what trees give, over all processes.

    Args:
        ranker: what the model is ranked with, measured beside the `RANKERS` if it goes by judged candidates.
    """

    def __init__(self, ranker: Ranker | None = None) -> None:
        super().__init__()
        judges = ranker is not None and ranker.kinds == ("verify",)
        self.rankers = RANKERS | ({ranker.name: ranker} if judges else {})
        self.writing = nn.ModuleList(
            MetricCollection(
                {"loss": MeanMetric(), "token_accuracy": MeanMetric(), "exact_match": MeanMetric()},
                prefix=f"val/{kind.label}/",
                compute_groups=False,
            )
            for kind in PromptKind
        )
        self.verdict_loss = MeanMetric()
        self.verdicts = MetricCollection(
            {"auroc": BinaryAUROC(), "accuracy": BinaryAccuracy()}, prefix=f"val/{VERIFY}/", compute_groups=False
        )
        self.rankings = nn.ModuleDict()
        for method in self.rankers:
            for k in (1, 2):
                self.rankings[f"{method}_top{k}"] = RetrievalHitRate(top_k=k, empty_target_action="skip")
            self.rankings[f"{method}_mrr"] = RetrievalMRR(empty_target_action="skip")

    def reset(self) -> None:
        """Begin with nothing."""
        for metric in (*self.writing, self.verdict_loss, self.verdicts, *self.rankings.values()):
            metric.reset()

    def update(self, shape: TreeShape, scores: BranchScores, info: dict[str, Any]) -> None:
        """Add a tree.

        Args:
            shape: the tree.
            scores: of its branches.
            info: has the number of the ``episode`` and the ``evidence`` that the tree adds to, whose candidates are the
                first answers; ``None`` where there is nothing to rank: an episode that is asked in several prompts is
                ranked once.
        """
        self._update_writing(shape, scores)
        if not any(correct >= 0 for correct in shape.correct):
            return
        right = torch.tensor(shape.correct, device=scores.log_odds.device) == 1
        log_odds = scores.log_odds.float()
        self.verdict_loss.update(nn.functional.softplus(torch.where(right, -log_odds, log_odds)))
        self.verdicts.update(log_odds.sigmoid(), right.long())
        if info["evidence"] is not None:
            self._update_rankings(shape, info["episode"], info["evidence"], scores)

    def compute(self, add_up: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return the metrics by name; none of what no tree was about.

        Args:
            add_up: sums a tensor over all processes.
        """
        ranked = [torch.tensor(float(len(m.indexes)), device=m.device) for m in self.rankings.values()]
        seen = [self.verdict_loss.weight, *(metrics["loss"].weight for metrics in self.writing)]
        verdicts, *others = add_up(torch.stack([*seen, *ranked])).tolist()
        writing, ranked = others[: len(self.writing)], others[len(self.writing) :]
        found: dict[str, Any] = {}
        for seen, metrics in zip(writing, self.writing, strict=True):
            found |= metrics.compute() if seen else {}
        if verdicts:
            _join(self.verdicts["auroc"])
            found |= {f"val/{VERIFY}/loss": self.verdict_loss.compute(), **self.verdicts.compute()}
        for n_trees, (name, metric) in zip(ranked, self.rankings.items(), strict=True):
            if n_trees:
                _join(metric)
                found[f"val/ranking/{name}"] = metric.compute()
        return found

    def _update_writing(self, shape: TreeShape, scores: BranchScores) -> None:
        """Add the first branch that is right to write."""
        meant = [
            i for i, (a, right) in enumerate(zip(shape.answers, shape.correct, strict=True)) if a < 0 or right == 1
        ]
        if not meant or not scores.written[meant[0]]:
            return
        metrics = self.writing[shape.kind]
        written, hits = scores.written[meant[0]], scores.hits[meant[0]]
        metrics["loss"].update(-scores.log_likelihood[meant[0]] / written, weight=written)
        metrics["token_accuracy"].update(hits / written, weight=written)
        metrics["exact_match"].update((hits == written).float())

    def _update_rankings(self, shape: TreeShape, episode: int, evidence: CandidateScores, scores: BranchScores) -> None:
        scored = np.full((3, len(evidence.candidates)), np.nan)
        of_branches = torch.stack([scores.log_odds, scores.log_likelihood, scores.mismatches]).float().tolist()
        for branch, answer in enumerate(shape.answers):
            if answer < len(evidence.candidates):
                scored[:, answer] = [values[branch] for values in of_branches]
        log_odds, log_likelihood, mismatches = scored.tolist()
        known = evidence.with_records([ViewScores(evidence.key, 0, log_odds, log_likelihood, mismatches=mismatches)])
        right = torch.tensor(known.correct, device=scores.log_odds.device)
        query = torch.full_like(right, episode, dtype=torch.long)
        for method, ranker in self.rankers.items():
            ranking = ranker.rank(known)
            if np.isnan(ranking.score).all():
                continue  # a prompt that shows candidates instead of writing them gives no likelihood
            # Places from the end, instead of scores: torchmetrics leaves the order of equal scores open, and takes
            # what is not above zero for irrelevant.
            place = torch.empty(len(right), device=right.device)
            place[torch.from_numpy(ranking.order)] = torch.arange(len(right), 0, -1, device=right.device).float()
            for measure in ("top1", "top2", "mrr"):
                self.rankings[f"{method}_{measure}"].update(place, right, query)


def _join(metric: Metric) -> None:
    """Make one tensor of each list that a metric keeps: all processes exchange as many, however many trees each saw."""
    for name in {"indexes", "preds", "target"} & metric._defaults.keys():
        dtype = torch.float32 if name == "preds" else torch.long
        parts = [part.to(dtype) for part in getattr(metric, name)]
        setattr(metric, name, [torch.cat(parts) if parts else torch.zeros(0, dtype=dtype, device=metric.device)])
