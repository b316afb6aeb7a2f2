"""The last lines of a training: the paths that it has written, and the next command."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning as L

from lightning_arc.callbacks.export import ExportModel
from lightning_arc.cli import program
from lightning_arc.model.typed import typed_trainer
from lightning_arc.prompt.templates import PROMPTS
from lightning_arc.prompt.tree import PromptKind


def print_afterwards(trainer: L.Trainer) -> None:
    """Print, in the first process, the full paths that a training has written, one per line, and the next command."""
    if not trainer.is_global_zero:
        return
    written = [(name, path) for name, path in _written(trainer) if path.exists()]
    for name, path in written:
        print(f"{name + ':':<12}{path.absolute()}")
    checkpoints = [path for name, path in written if name == "checkpoint"]
    if checkpoints:
        print(f"{'next:':<12}{next_command(trainer, checkpoints[0])}")


def next_command(trainer: L.Trainer, checkpoint: Path) -> str:
    """Return the command that ranks with a checkpoint, or generates with one that has not learned to judge."""
    datasets = typed_trainer(trainer).datamodule.options.train_datasets or ()
    prompts = [prompt for dataset in datasets for prompt in dataset.prompts]
    judges = any(PROMPTS[prompt] is PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES for prompt in prompts)
    name = "rank" if judges else "generate"
    folder = Path(trainer.default_root_dir).absolute() / name
    words = ["predict", "--config", f"configs/{name}.yaml", "--ckpt_path", str(checkpoint.absolute())]
    return f"{_program()} {shlex.join([*words, '--trainer.default_root_dir', str(folder)])}"


def _written(trainer: L.Trainer) -> Iterator[tuple[str, Path]]:
    for saving in trainer.checkpoint_callbacks:
        path = getattr(saving, "last_model_path", "") or getattr(saving, "best_model_path", "")
        if path:
            yield "checkpoint", Path(path)
    for callback in typed_trainer(trainer).callbacks:
        if isinstance(callback, ExportModel) and callback.folder is not None:
            yield "model", Path(trainer.default_root_dir) / callback.folder
    for logger in trainer.loggers:
        if logger.log_dir:
            yield "logs", Path(logger.log_dir)


def _program() -> str:
    """Return the words before this command's, as they were typed."""
    given = sys.argv[1:]
    typed = sys.orig_argv
    return shlex.join(typed[: -len(given)]) if given and typed[-len(given) :] == given else program()
