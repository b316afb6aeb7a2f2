"""Validation metrics: how well a model writes, how well it judges, and how well it ranks candidates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR
from torchmetrics.retrieval.base import RetrievalMetric
from torchmetrics.utilities.data import dim_zero_cat

from lightning_arc.data.batch import TreeShape
from lightning_arc.model.scoring import BranchScores
from lightning_arc.prompt.tree import PromptKind
from lightning_arc.ranking.rankers import RANKERS, Ranker
from lightning_arc.ranking.records import ViewScores
from lightning_arc.ranking.scores import CandidateScores

VERIFY_TAG, WRITE_TAG = PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES.label, PromptKind.OUTPUT_FROM_EXAMPLES.label
"""The parts of metrics' names that say which prompts they are about."""

VERDICTS = "verdicts"
"""The name of the sample of verdicts."""


@dataclass(frozen=True)
class Sample:
    """The values over which one or two metrics are means, from all processes.

    Args:
        values: ``(n,)`` of each prompt, verdict or test input.
        others: ``(n,)`` whole numbers that belong to them.
        episodes: ``(n,)`` places in ``ValidationData.episodes``.
    """

    values: NDArray[np.float64]
    others: NDArray[np.int64]
    episodes: NDArray[np.int64]


class KeptSample(Metric):
    """Keeps the rows of a `Sample`."""

    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]
    indexes: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("preds", "target", "indexes"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, values: Tensor, others: Tensor, episode: int) -> None:
        """Add rows of an episode."""
        self.preds.append(values.float())
        self.target.append(others.long())
        self.indexes.append(torch.full_like(others, episode, dtype=torch.long))

    def compute(self) -> tuple[Tensor, ...]:
        """Return the rows of all processes."""
        return tuple(dim_zero_cat(rows) for rows in (self.preds, self.target, self.indexes))


class ValidationMetrics(nn.Module):
    """Accumulates the metrics of trees, over all processes.

    After `compute`, `samples` has the values that metrics are means of: by kind the exact matches of written outputs;
    as ``verdicts`` the log-odds of candidates and whether each is right; and by ranker whether the first candidate, and
    whether one of the first two, is right.

    Args:
        ranker: the model's ranker, measured beside the `RANKERS` if it uses judged candidates.
    """

    def __init__(self, ranker: Ranker | None = None) -> None:
        super().__init__()
        self.rankers = dict(RANKERS)
        if ranker is not None and ranker.kinds == ("verify",):
            self.rankers[ranker.name] = ranker
        self.writing_losses = [MeanMetric() for _ in PromptKind]
        self.writing = [
            MetricCollection(
                {"loss": loss, "token_accuracy": MeanMetric(), "exact_match": MeanMetric()},
                prefix=f"val/{kind.label}/",
                compute_groups=False,
            )
            for kind, loss in zip(PromptKind, self.writing_losses, strict=True)
        ]
        self.verdict_loss = MeanMetric()
        self.verdicts = MetricCollection(
            {"auroc": BinaryAUROC(), "accuracy": BinaryAccuracy()}, prefix=f"val/{VERIFY_TAG}/", compute_groups=False
        )
        self.rankings: dict[str, RetrievalMetric] = {}
        for method in self.rankers:
            for k in (1, 2):
                self.rankings[f"{method}_top{k}"] = RetrievalHitRate(top_k=k, empty_target_action="skip")
            self.rankings[f"{method}_mrr"] = RetrievalMRR(empty_target_action="skip")
        names = [*(kind.label for kind in PromptKind), VERDICTS, *self.rankers]
        self.kept = {name: KeptSample() for name in names}
        self.by_query: list[RetrievalMetric | KeptSample] = [*self.rankings.values(), *self.kept.values()]
        self.all: list[Metric | MetricCollection] = [*self.writing, self.verdict_loss, self.verdicts, *self.by_query]
        self.known_to_torch = nn.ModuleList(self.all)
        self.samples: dict[str, Sample] = {}

    def reset(self) -> None:
        """Clear all values."""
        for metric in self.all:
            metric.reset()
        self.samples = {}

    def update(self, shape: TreeShape, scores: BranchScores, info: dict[str, Any]) -> None:
        """Add a tree.

        Args:
            shape: the tree.
            scores: of its branches.
            info: has the number of the ``episode``, and the ``evidence`` that the tree adds to, whose candidates are
                the first answers. The evidence is ``None`` where nothing is ranked, such as in all but one prompt of an
                episode.
        """
        self._update_writing(shape, scores, info["episode"])
        if not any(correct >= 0 for correct in shape.correct):
            return
        right = torch.tensor(shape.correct, device=scores.log_odds.device) == 1
        log_odds = scores.log_odds.float()
        self.verdict_loss.update(nn.functional.softplus(torch.where(right, -log_odds, log_odds)))
        self.verdicts.update(0.5 + 0.5 * log_odds / (1 + log_odds.abs()), right.long())  # sigmoids end in equal ones
        self.kept[VERDICTS].update(log_odds, right, info["episode"])
        if info["evidence"] is not None:
            self._update_rankings(shape, info["episode"], info["evidence"], scores)

    def compute(self, add_up: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return the metrics by name, without those that no tree was about.

        Args:
            add_up: sums a tensor over all processes.
        """
        n_seen = [
            self.verdict_loss.weight,
            *(loss.weight for loss in self.writing_losses),
            *(torch.tensor(float(len(metric.indexes)), device=metric.device) for metric in self.by_query),
        ]
        verdicts, *others = add_up(torch.stack(n_seen)).tolist()
        writing, others = others[: len(self.writing)], others[len(self.writing) :]
        ranked, kept = others[: len(self.rankings)], others[len(self.rankings) :]
        found: dict[str, Any] = {}
        for n_targets, metrics in zip(writing, self.writing, strict=True):
            found |= metrics.compute() if n_targets else {}
        if verdicts:
            _join(self.verdicts["auroc"])
            found |= {f"val/{VERIFY_TAG}/loss": self.verdict_loss.compute(), **self.verdicts.compute()}
        for n_trees, (name, metric) in zip(ranked, self.rankings.items(), strict=True):
            if n_trees:
                _join(metric)
                found[f"val/ranking/{name}"] = metric.compute()
        for n_trees, (name, sample) in zip(kept, self.kept.items(), strict=True):
            if n_trees:
                _join(sample)
                self.samples[name] = Sample(*(rows.numpy(force=True) for rows in sample.compute()))
        votes = self.samples.get("vote")
        for method in [name for name in self.rankers if name != "vote"]:
            firsts = self.samples.get(method)
            if firsts is None or votes is None or not np.array_equal(firsts.episodes, votes.episodes):
                continue
            for k in (1, 2):
                difference = found[f"val/ranking/{method}_top{k}"] - found[f"val/ranking/vote_top{k}"]
                found[f"val/ranking/{method}_top{k}_minus_vote"] = difference
        return found

    def _update_writing(self, shape: TreeShape, scores: BranchScores, episode: int) -> None:
        """Add the first branch whose written output is right."""
        meant = [
            i for i, (a, right) in enumerate(zip(shape.answers, shape.correct, strict=True)) if a < 0 or right == 1
        ]
        if not meant or not scores.written[meant[0]]:
            return
        metrics = self.writing[shape.kind]
        written, hits = scores.written[meant[0]], scores.hits[meant[0]]
        metrics["loss"].update(-scores.log_likelihood[meant[0]] / written, weight=written)
        metrics["token_accuracy"].update(hits / written, weight=written)
        exact = (hits == written).float()
        metrics["exact_match"].update(exact)
        self.kept[shape.kind.label].update(exact[None], written[None], episode)

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
            if right.any():
                first, second = (right[torch.from_numpy(ranking.order[:k].copy())].any()[None] for k in (1, 2))
                self.kept[method].update(first, second, episode)


def _join(metric: Metric) -> None:
    """Make one tensor of each list that a metric keeps: all processes exchange as many, however many trees each saw."""
    for name in {"indexes", "preds", "target"} & metric._defaults.keys():
        dtype = torch.float32 if name == "preds" else torch.long
        parts = [part.to(dtype) for part in getattr(metric, name)]
        setattr(metric, name, [torch.cat(parts) if parts else torch.zeros(0, dtype=dtype, device=metric.device)])
