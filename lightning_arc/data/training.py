"""Training data: batches of numbered samples."""

from collections.abc import Sequence

import lightning as L
import torch

from lightning_arc.arc.io.tasks import read_all_tasks
from lightning_arc.arc.task import Task
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.loader import BatchStream, ResumableLoader, collate
from lightning_arc.data.mixture import read_mixture
from lightning_arc.data.options import DataOptions
from lightning_arc.data.sampler import Sampler, statistics
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS


class TrainingData:
    """Training batches.

    Args:
        options: say which datasets are trained on, and how samples are drawn.
        prompt_encoder: makes token trees.
        validated: tasks that are validated, which no dataset may hold.
        trainer: its first process looks for leaks and tells the others.

    Attributes:
        sampler: draws the samples.

    Raises:
        DataError: names the invalid input.
    """

    def __init__(
        self,
        options: DataOptions,
        prompt_encoder: PromptEncoder,
        validated: Sequence[Task] = (),
        trainer: L.Trainer | None = None,
    ) -> None:
        if not options.train_datasets:
            raise DataError("data.train_datasets: nothing to train with")
        paths = [*(options.evaluation_tasks or ()), *([options.tasks] if options.tasks else ())]
        judged = [task for path in paths for task in read_all_tasks(path, options.oversized_tasks).values()]
        sources = read_mixture(
            options.train_datasets,
            options.oversized_tasks,
            options.held_out_fraction,
            [*validated, *judged],
            options.drop_leaks,
            options.allow_leaks,
            trainer,
            validated,
        )
        self.options = options
        self.sampler = Sampler(sources, prompt_encoder, options, options.seed)
        programs = [prompt for prompt in self.sampler.prompts if PROMPTS[prompt] in FROM_CODE]
        if programs and not prompt_encoder.writes_code:
            raise DataError(
                f"data.train_datasets: {programs[0]} needs a model whose tokenizer writes text, with all its tokens"
            )

    def batch(self, numbers: range) -> TreeBatch:
        """Make the batch of given sample numbers."""
        samples = [self.sampler.sample(number) for number in numbers]
        stats = statistics(samples, self.sampler.prompts, self.options)
        trees = [sample.tree for sample in samples]
        return collate(trees, self.sampler.prompt_encoder, self.options, stats=stats, training=True)

    def loader(self, rank: int, world_size: int) -> ResumableLoader:
        """Return a process's loader, which continues where a checkpoint was written.

        Args:
            rank: which of the processes that train together it is.
            world_size: how many there are.
        """
        options = self.options
        stream = BatchStream(self.batch, options.batch_size, rank, world_size)
        batches = max(1, options.samples_per_epoch // (options.batch_size * world_size))
        return ResumableLoader(stream, batches, options.num_workers, pin_memory=torch.cuda.is_available())
