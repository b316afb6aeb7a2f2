"""The model in prediction: the members of its ensemble, trained at test time where that is wanted, score and write."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from lightning_arc.arc import PairKey
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.prediction import GenerationRequest, PredictionData
from lightning_arc.data.ttt import WHOLE_SET
from lightning_arc.model.adapters import Adapters
from lightning_arc.model.answers import GeneratedView, generate_answers, view_scores
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.batch_loss import batch_loss
from lightning_arc.model.finite import finite_answers
from lightning_arc.model.scoring import BranchScores, score_batch
from lightning_arc.model.ttt import TestTimeResult, TestTimeTrainer
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.ranking.records import ScoringRequest, ViewScores


@dataclass(frozen=True)
class ScoringBatch:
    """Requests about candidates that one member answers in one pass.

    Args:
        trees: one tree per request.
        requests: the requests.
        n_candidates: for each request, the number of its test input's candidates, in the request or not.
        member: which model of the ensemble is asked.
        dataset: key of the test-time training dataset, ``None`` without such training.
    """

    trees: TreeBatch
    requests: tuple[ScoringRequest, ...]
    n_candidates: tuple[int, ...]
    member: int = 0
    dataset: PairKey | None = None


@dataclass(frozen=True)
class GenerationBatch:
    """Prompts that outputs are written behind.

    Args:
        trees: one tree per request, with a single branch.
        requests: the requests.
        dataset: key of the test-time training dataset, ``None`` without such training.
    """

    trees: TreeBatch
    requests: tuple[GenerationRequest, ...]
    dataset: PairKey | None = None


class Predictor:
    """Answers batches, each by the member that is asked, after its test-time training.

    Args:
        model: with its weights; its settings say how it is trained and how it writes.
        data: has the prompts and the datasets of test-time training.
        folder: where the results of that training are kept.
    """

    def __init__(self, model: ArcModel, data: PredictionData, folder: Path) -> None:
        self.model, self.data, self.folder = model, data, folder
        encoder, generates = data.prompt_encoder, data.options.generate
        self._grammar = Grammar(encoder) if generates and model.decoding.constrained else None
        self._grid_rows = encoder.rows if generates else None
        self._unpaid: dict[int, TestTimeResult] = {}

    def adapt_to_set(self) -> None:
        """Train each member on the demonstrations of all tasks; the cost is added to the member's next answer."""
        for number in range(len(self.model.models.members)):
            result = self._adapt(number, WHOLE_SET)
            if result is not None:
                self._unpaid[number] = result

    def score(self, batch: ScoringBatch) -> list[ViewScores]:
        """Return the answer to each request; its ``seconds`` are the batch's in proportion to tokens.

        Raises:
            DataError: if a score of the model is not a finite number.
        """
        trees = batch.trees.to(self.model.device)
        with self._member(batch.member, batch.dataset) as (model, result):
            start = time.perf_counter()
            scores = score_batch(model, trees, self.model.attention)
            scores = BranchScores(*(getattr(scores, f.name).cpu() for f in fields(scores)))
            seconds_a_token = (time.perf_counter() - start) / max(sum(trees.n_tokens), 1)
        answers = []
        for i, (request, n) in enumerate(zip(batch.requests, batch.n_candidates, strict=True)):
            shape = trees.shapes[i]
            with finite_answers([(request.key, request.view)]):
                found = view_scores(request, n, shape, scores.select(trees.rows(i)), seconds_a_token * shape.n_tokens)
            answers.append(replace(found, diverged=result.diverged))
        first = answers[0]
        answers[0] = replace(first, test_time_tokens=result.tokens, seconds=first.seconds + result.seconds)
        return answers

    def generate(self, batch: GenerationBatch) -> list[GeneratedView]:
        """Return the answers behind each prompt.

        Raises:
            DataError: if a logit of the model is not a finite number.
        """
        trees = batch.trees.to(self.model.device)
        with self._member(0, batch.dataset) as (model, result):
            found = generate_answers(model, trees, batch.requests, self.model.decoding, self._grammar, self._grid_rows)
        return [replace(answers, diverged=result.diverged) for answers in found]

    @contextmanager
    def _member(self, number: int, dataset: PairKey | None) -> Iterator[tuple[PreTrainedModel, TestTimeResult]]:
        """Yield a member's model, trained on a dataset if there is one, and the result of the training."""
        result = None if dataset is None else self._adapt(number, dataset)
        trained = result is not None and not result.diverged
        with self.model.models.activate(number, adapted=trained) as model:
            yield model, result or TestTimeResult(0)

    def _adapt(self, number: int, key: PairKey) -> TestTimeResult | None:
        """Train a member on the dataset of this key; return the result, ``None`` if there is no dataset."""
        settings, models = self.model.test_time, self.model.models
        dataset = self.data.test_time_dataset(key)
        if settings is None or dataset is None or not settings.steps:
            return None

        def new_trainer(adapters: Adapters) -> TestTimeTrainer:
            signature = f"{self.data.signature}-{self.model.signature}"
            return TestTimeTrainer(adapters, settings, self._loss, self.folder, signature)

        models.add_trainers(new_trainer)
        result = models.adapt(number, dataset)
        return self._unpaid.pop(number, result)

    def _loss(self, model: PreTrainedModel, batch: TreeBatch, trained: Sequence[Parameter]) -> Tensor:
        return batch_loss(model, batch, list(trained), self.model.kind_weights, self.model.attention)[0]
