"""The data module: datasets, candidates and settings in, tree batches out."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lightning_arc.arc import (
    Episode,
    PairKey,
    Task,
)
from lightning_arc.arc.io.tasks import Oversized, read_all_tasks
from lightning_arc.arc.leave_one_out import FEW, MANY
from lightning_arc.augment.composition import DEFAULT_WEIGHTS
from lightning_arc.augment.distractors import DEFAULT_WEIGHTS as DISTRACTOR_WEIGHTS
from lightning_arc.data.batch import TreeBatch, TreeShape, default_max_tokens
from lightning_arc.data.checks import check_settings
from lightning_arc.data.loader import BatchStream, ResumableLoader
from lightning_arc.data.mixture import read_mixture, split
from lightning_arc.data.prediction import (
    GenerationRequest,
    PredictionSet,
    generation_tree,
    read_prediction_set,
    request_tree,
)
from lightning_arc.data.sampler import Sampler, SamplingOptions, fit_demonstrations, statistics
from lightning_arc.data.sources import DatasetConfig, read_source
from lightning_arc.data.ttt import WHOLE_SET, Scope, TestTimeDataset, dataset_key, prompts_beside
from lightning_arc.data.validation import episode_for_prompt, validation_episodes, without_scores
from lightning_arc.data.workers import follow_parent
from lightning_arc.errors import DataError
from lightning_arc.prompt.grid_encoders import GridEncoder
from lightning_arc.prompt.positions import Positions
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.prompt_settings import PromptSettings, remembered
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS, VERIFY
from lightning_arc.prompt.tree import PromptKind, TokenTree
from lightning_arc.ranking.records import ScoringRequest


class ArcDataModule(L.LightningDataModule):
    """Training, validation and prediction data.

    Args:
        model_path: the model whose tokenizer is used (follows ``model.model_path``); ``null`` for the compact one.
        train_datasets: what is trained with.
        val_dataset: what is validated with, its candidates ranked against voting.
        evaluation_tasks: further tasks that no training dataset may hold, beside those that are validated or, with
            `tasks`, predicted.
        drop_leaks: whether such tasks, and all that has the id of one, are left out of the training datasets; any pair
            in common counts then. Else a dataset with some is refused.
        allow_leaks: whether training datasets may hold such tasks.
        held_out_fraction: share of the tasks, drawn by their ids, that `val_dataset` and, in prediction, `tasks` are
            reduced to and that every training dataset leaves out.
        tasks: what is predicted, in any form that `read_tasks` takes.
        candidates: files of candidates that are ranked; votes of several files add up.
        generate: whether candidates are written for `tasks`, instead of given ones ranked.
        leave_one_out: whether they are written, or given ones ranked, for demonstration pairs too, each in turn left
            out of the others; ranked are those that `candidates` has some of.
        with_right_output: whether a known right output that is not among a query's candidates is ranked with them. It
            has no vote. This measures a verifier, not a solver.
        only_with_candidates: whether tasks that no candidate file names are left out of the prediction.
        oversized_tasks: whether tasks with a grid of more than 30 rows or columns are passed over with a warning
            (``skip``; a submission has ``[[0]]`` for them) or refused (``error``), in all data.
        test_time_scope: whose demonstrations are trained on at test time: each task's alone (``task``), those of all
            tasks together (``set``), or none (follows ``model.test_time``).
        test_time_prompts: prompts of this training; ``null`` for `predict_prompt` and, unless that writes outputs too,
            a prompt that does.
        positions: what positions a model from scratch takes (follows ``model.scratch``); others tell it themselves.
        trim_vocabulary: whether tokens are numbered among those that prompts can hold (follows the model's).
        grid_encoder: how grids are written, as an encoder, its string form, or ``null`` for the model's own.
        chat_template: file of a Jinja chat template; ``null`` for the model's own, or ChatML where it has none.
        chat_template_kwargs: further names that the template uses, such as ``enable_thinking``.
        predict_prompt: a verification prompt that candidates are ranked with.
        n_views: symmetry views of every query, and of every candidate that is judged without ``model.stopping``.
        max_seq_len: most tokens of one sequence, prefix and branch together.
        drop_demonstrations: whether demonstrations are left out where a sequence is longer; else the sample is skipped.
        batch_size: trees (prompts with all their answers) a step and process.
        max_tokens_per_batch: most tokens that go through the model at once. Trees are packed up to it; what a step has
            more goes through one after the other, and a tree that is longer by itself in parts. ``null`` stands for
            16,384, and for 4,096 in ranking on a CPU, whose caches hold no more.
        samples_per_epoch: samples until an epoch ends, which is when Lightning may validate and save.
        num_workers: processes that prepare samples; the samples are the same for any number.
        learn_demonstrations: whether outputs of demonstrations are trained too, from the second on.
        wrong_per_episode: wrong predictions that are judged beside the right output in one prompt.
        distractor_probability: share of them that is made from the task even where the pool has enough.
        distractor_weights: how often each kind of them is drawn.
        verify_correct_output_probability: share of the right output in the loss of verdicts.
        compose_new_task_probability: how often inputs or outputs are transformed to make another task.
        compose_new_task_weights: how often each family of transformations is drawn.
        keep_background_probability: how often colour 0 keeps its place in a permutation of colours.
        pool_demonstrations: least and most demonstrations that are drawn of a list of interchangeable pairs (RE-ARC).
        seed: with a sample's number, determines it (follows ``seed_everything``).
    """

    def __init__(
        self,
        model_path: str | None = None,
        train_datasets: list[DatasetConfig] | None = None,
        val_dataset: DatasetConfig | None = None,
        evaluation_tasks: list[str] | None = None,
        drop_leaks: bool = False,
        allow_leaks: bool = False,
        held_out_fraction: float = 0.0,
        tasks: str | None = None,
        candidates: str | list[str] | None = None,
        generate: bool = False,
        leave_one_out: bool = False,
        with_right_output: bool = False,
        only_with_candidates: bool = False,
        oversized_tasks: Oversized = "skip",
        test_time_scope: Scope | None = None,
        test_time_prompts: list[str] | None = None,
        positions: Positions = "sequence",
        trim_vocabulary: bool = False,
        grid_encoder: GridEncoder | str | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        predict_prompt: str = VERIFY,
        n_views: int = 8,
        max_seq_len: int = 4096,
        drop_demonstrations: bool = True,
        batch_size: int = 8,
        max_tokens_per_batch: int | None = None,
        samples_per_epoch: int = 10_000,
        num_workers: int = 0,
        learn_demonstrations: bool = False,
        wrong_per_episode: int = 4,
        distractor_probability: float = 0.25,
        distractor_weights: dict[str, float] | None = None,
        verify_correct_output_probability: float = 0.5,
        compose_new_task_probability: float = 0.0,
        compose_new_task_weights: dict[str, float] | None = None,
        keep_background_probability: float = 0.9,
        pool_demonstrations: tuple[int, int] = (FEW, MANY),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model_path, self.positions, self.seed, self.num_workers = model_path, positions, seed, num_workers
        self.train_datasets, self.val_dataset = train_datasets or [], val_dataset
        self.evaluation_tasks, self.held_out_fraction = evaluation_tasks or [], held_out_fraction
        self.drop_leaks, self.allow_leaks = drop_leaks, allow_leaks
        self.tasks, self.predict_prompt, self.n_views = tasks, predict_prompt, n_views
        self.candidates = [candidates] if isinstance(candidates, str) else candidates or []
        self.generate, self.leave_one_out, self.with_right_output = generate, leave_one_out, with_right_output
        self.only_with_candidates, self.trim_vocabulary = only_with_candidates, trim_vocabulary
        self.oversized_tasks: Oversized = oversized_tasks
        self.test_time_scope: Scope | None = test_time_scope
        self.test_time_prompts = test_time_prompts or prompts_beside(predict_prompt)
        self.prompts = PromptSettings.read(grid_encoder, chat_template, chat_template_kwargs)
        self.batch_size, self.max_tokens_per_batch = batch_size, max_tokens_per_batch
        self.samples_per_epoch = samples_per_epoch
        self.options = SamplingOptions(
            max_seq_len=max_seq_len,
            drop_demonstrations=drop_demonstrations,
            learn_demonstrations=learn_demonstrations,
            wrong_per_episode=wrong_per_episode,
            distractor_probability=distractor_probability,
            distractor_weights=distractor_weights or dict(DISTRACTOR_WEIGHTS),
            verify_correct_output_probability=verify_correct_output_probability,
            compose_new_task_probability=compose_new_task_probability,
            compose_new_task_weights=compose_new_task_weights or dict(DEFAULT_WEIGHTS),
            keep_background_probability=keep_background_probability,
            pool_demonstrations=tuple(pool_demonstrations),
        )
        check_settings(self)
        self.prompt_encoder: PromptEncoder | None = None
        self.val_episodes: list[Episode] = []
        self.prediction = PredictionSet()
        self._sampler: Sampler | None = None
        self._val_tasks: list[Task] = []
        self._test_time_dataset: TestTimeDataset | None = None

    def setup(self, stage: str) -> None:
        """Read what a stage needs; all that a person can have got wrong shows here, before any model is loaded."""
        self.prompt_encoder = self.prompts.load(self.model_path, self.trim_vocabulary, self.positions)
        if self.prompt_encoder.by_turns:
            rank_zero_warn(f"{self.model_path}: the tokenizer needs whole turns at a time, so prompts are made slower")
        if stage == "fit" and not self.train_datasets:
            raise DataError("data.train_datasets: nothing to train with")
        if stage == "validate" and self.val_dataset is None:
            raise DataError("data.val_dataset: nothing to validate with")
        if stage in ("fit", "validate") and self.val_dataset is not None and not self.val_episodes:
            source = read_source(self.val_dataset, self.oversized_tasks, in_memory=True)
            source = split(source, self.held_out_fraction, held_out=True)
            self.val_episodes, self._val_tasks = validation_episodes(source, self.seed), list(source.tasks)
        if stage == "fit" and self._sampler is None:
            self._sampler = self._training_sampler()
        if stage == "predict":
            self._read_prediction()

    def _training_sampler(self) -> Sampler:
        judged = self.evaluation_tasks + ([self.tasks] if self.tasks else [])
        tasks = [task for path in judged for task in read_all_tasks(path, self.oversized_tasks).values()]
        how = self.oversized_tasks, self.held_out_fraction, [*self._val_tasks, *tasks]
        how += self.drop_leaks, self.allow_leaks, self.trainer, self._val_tasks
        sampler = Sampler(read_mixture(self.train_datasets, *how), self.prompt_encoder, self.options, self.seed)
        programs = [prompt for prompt in sampler.prompts if PROMPTS[prompt] in FROM_CODE]
        if programs and not self.prompt_encoder.writes_code:
            raise DataError(
                f"data.train_datasets: {programs[0]} needs a model whose tokenizer writes text, with all its tokens"
            )
        return sampler

    def _read_prediction(self) -> None:
        if self.tasks is None or not (self.candidates or self.generate):
            raise DataError("data.tasks and data.candidates: both are needed to rank")
        self.prediction = read_prediction_set(
            self.tasks,
            None if self.generate else self.candidates,
            held_out_fraction=self.held_out_fraction,
            oversized=self.oversized_tasks,
            only_with_candidates=self.only_with_candidates,
            leave_one_out=self.leave_one_out,
            with_right_output=self.with_right_output,
            pool_demonstrations=self.options.pool_demonstrations,
            seed=self.seed,
        )

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of training batches, which continues where a checkpoint was written."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        stream = BatchStream(self.train_batch, self.batch_size, rank, world_size)
        batches = max(1, self.samples_per_epoch // (self.batch_size * world_size))
        return ResumableLoader(stream, batches, self.num_workers, pin_memory=torch.cuda.is_available())

    def val_dataloader(self) -> DataLoader | list:
        """Return the loader of validation batches."""
        if not self.val_episodes:
            return []
        asked = [
            (i, prompt)
            for prompt in self.val_dataset.prompts
            for i, episode in enumerate(self.val_episodes)
            if episode_for_prompt(episode, prompt, self.seed) is not None
        ]
        options = {"num_workers": self.num_workers, "worker_init_fn": follow_parent}
        return DataLoader(asked, self.batch_size, collate_fn=self._val_batch, **options)

    def transfer_batch_to_device(self, batch: TreeBatch, device: torch.device, dataloader_idx: int) -> TreeBatch:
        """Move a batch without waiting for it."""
        return batch.to(device, non_blocking=True)

    def train_batch(self, numbers: range) -> TreeBatch:
        """Make the batch of given sample numbers."""
        samples = [self._sampler.sample(number) for number in numbers]
        stats = statistics(samples, self._sampler.prompts, self.options)
        return self.collate([sample.tree for sample in samples], stats=stats, training=True)

    def val_tree(self, item: tuple[int, str]) -> tuple[TokenTree | None, dict[str, Any]]:
        """Make the tree of a validation episode in a prompt, ``None`` if it is too long, and its info."""
        i, prompt = item
        episode = episode_for_prompt(self.val_episodes[i], prompt, self.seed)
        tree = fit_demonstrations(self.prompt_encoder, episode, prompt, self.options.max_seq_len, drop=True)
        ranks = next(
            (p for p in self.val_dataset.prompts if PROMPTS[p] is PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES), None
        )
        return tree, {"episode": i, "evidence": without_scores(self.val_episodes[i]) if prompt == ranks else None}

    def request_tree(self, request: ScoringRequest) -> TokenTree | None:
        """Make the tree of a request about candidates, ``None`` if it is too long."""
        limit = self.options.max_seq_len
        return request_tree(self.prompt_encoder, self.prediction, request, self.predict_prompt, limit, self.seed)

    def generation_tree(self, key: PairKey, view: int) -> tuple[GenerationRequest, TokenTree] | None:
        """Make the tree that a query's output is generated behind under a view; ``None`` if it is too long."""
        query, limit = self.prediction.queries[key], self.options.max_seq_len
        return generation_tree(self.prompt_encoder, query, view, limit, self.seed)

    def cost(self, request: ScoringRequest) -> int:
        """Return the tokens of a request, 0 if it is too long."""
        tree = self.request_tree(request)
        return 0 if tree is None else TreeShape.of(tree).n_tokens

    def test_time_key(self, key: PairKey) -> PairKey | None:
        """Return what names the dataset that a model is trained on before a query; ``None`` for no training."""
        return None if self.test_time_scope is None else dataset_key(key, self.test_time_scope)

    def test_time_dataset(self, key: PairKey) -> TestTimeDataset | None:
        """Return the dataset of test-time training, ``None`` if no task has two demonstrations.

        Args:
            key: names the dataset, see `test_time_key`.
        """
        if self._test_time_dataset is None or self._test_time_dataset.key != key:
            data = self.prediction
            episodes = data.one_query_per_task() if key == WHOLE_SET else [data.queries[key]]
            collate = partial(self.collate, training=True)
            how = self.prompt_encoder, self.options, self.test_time_prompts, collate, self.seed
            self._test_time_dataset = TestTimeDataset(key, episodes, data.tasks, data.candidates, *how)
        return self._test_time_dataset if self._test_time_dataset.usable else None

    @property
    def signature(self) -> str:
        """Name of what is predicted and how: interrupted work is continued only if both are the same."""
        settings = [self.predict_prompt, str(self.prompt_encoder.grid_encoder), self.options.max_seq_len, self.seed]
        settings += [self.generate, self.leave_one_out, self.options.pool_demonstrations]
        settings += self.prompt_encoder.conversation
        settings += [self.test_time_prompts, str(self.options)] if self.test_time_scope else []
        settings += ["set"] if self.test_time_scope == "set" else []
        return self.prediction.signature(settings, all_candidates=self.test_time_scope is not None)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: how prompts are written."""
        return remembered(self.prompt_encoder) if self.prompt_encoder else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Write prompts as the checkpoint's model learned them, unless the settings say otherwise."""
        if self.prompt_encoder is not None and state:
            self.prompt_encoder = self.prompts.resumed(self.prompt_encoder, state)
            if self._sampler is not None:
                self._sampler.prompt_encoder = self.prompt_encoder

    def _val_batch(self, asked: list[tuple[int, str]]) -> TreeBatch:
        """Make a batch of the validation trees that are not too long."""
        made = [(tree, info) for tree, info in map(self.val_tree, asked) if tree is not None]
        return self.collate([tree for tree, _ in made], info=[info for _, info in made])

    def collate(self, trees: Sequence[TokenTree], info: Sequence[dict[str, Any]] = (), **options: Any) -> TreeBatch:
        """Make a batch of token trees, see `TreeBatch.collate`."""
        prompt_encoder = self.prompt_encoder
        ids = prompt_encoder.yes_id, prompt_encoder.no_id, prompt_encoder.choice_ids
        limit = self.max_tokens_per_batch or default_max_tokens(options.get("training", False))
        return TreeBatch.collate(trees, *ids, info, max_tokens=limit, **options)
