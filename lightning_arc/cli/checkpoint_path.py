"""The checkpoint that a command uses: a named file, or the newest complete one in a run's folder."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_arc.errors import DataError
from lightning_arc.model.checkpoint import check_state, read_checkpoint
from lightning_arc.model.hyper_parameters import saved_settings

STEP_FILE = re.compile(r"epoch=\d+-step=\d+(-v\d+)?\.ckpt")
"""Lightning's file name of a step's checkpoint."""


class Chosen(NamedTuple):
    """A checkpoint.

    Args:
        path: its file.
        settings: settings of the model, see `saved_settings`.
        step: optimizer steps that it was trained for.
        beside: names of its run's other checkpoints that had been saved and not removed.
    """

    path: str
    settings: dict[str, Any]
    step: int
    beside: frozenset[str]


def choose_checkpoint(
    ckpt_path: str | None, root: str | None, command: str, folders: Sequence[str] = ()
) -> Chosen | None:
    """Return the checkpoint that a command uses, ``None`` where there is none.

    Args:
        ckpt_path: a file; ``last`` for the newest whole checkpoint of a run; ``hpc`` for the one that Lightning saved
            when a cluster's time was over.
        root: the run's folder, ``trainer.default_root_dir``; ``None`` for the working directory.
        command: ``fit`` starts from the beginning where ``last`` finds nothing; other commands need a checkpoint.
        folders: further folders that checkpoints are saved in.

    Raises:
        DataError: if it is not a checkpoint that the command can use, or does not exist.
    """
    if not ckpt_path:
        return None
    training, here = command == "fit", root or "the working directory"
    if ckpt_path == "best" or re.fullmatch("registry(:.*)?", ckpt_path):
        raise DataError(f"ckpt_path: {ckpt_path} is not supported, expected a checkpoint's file, or last")
    if ckpt_path in ("last", "hpc"):
        paths = _newest_first(root, folders) if ckpt_path == "last" else _hpc(root)
        chosen = next(_whole(paths, ckpt_path, command), None)
        if chosen is None and (ckpt_path == "hpc" or not training):
            raise DataError(f"ckpt_path {ckpt_path}: no whole checkpoint in {here} (trainer.default_root_dir)")
        if chosen is None:
            rank_zero_info(f"{here}: no whole checkpoint, training starts from the beginning (ckpt_path last)")
        else:
            rank_zero_info(f"{'continuing from' if training else 'using'} {chosen.path} (ckpt_path {ckpt_path})")
        return chosen
    if Path(ckpt_path).is_dir():
        raise DataError(f"{ckpt_path}: is a folder, expected a checkpoint's file (ckpt_path)")
    return _read(ckpt_path, command)


def newest_checkpoint(root: str | None, folders: Sequence[str] = ()) -> Path | None:
    """Return the newest checkpoint of a run, whole or not."""
    return next(iter(_newest_first(root, folders)), None)


def _read(path: str, command: str) -> Chosen:
    content = read_checkpoint(path, mmap=True)
    if command != "export":
        check_state(content, path, command == "fit")
    callbacks = content.get("callbacks")
    states = callbacks.values() if isinstance(callbacks, dict) else ()
    beside = frozenset(Path(str(name)).name for state in states for name in _names(state) if name)
    return Chosen(path, saved_settings(content, path), _step(content), beside)


def _step(content: dict[str, Any]) -> int:
    step = content.get("global_step")
    return step if isinstance(step, int) else 0


def _whole(paths: Sequence[Path], ckpt_path: str, command: str) -> Iterator[Chosen]:
    """Read checkpoints in turn; each that cannot be used is passed over with a warning."""
    for path in paths:
        try:
            yield _read(str(path), command)
        except DataError as error:
            rank_zero_warn(f"{str(error).removesuffix(' (ckpt_path)')}; passed over (ckpt_path {ckpt_path})")


def _newest_first(root: str | None, folders: Sequence[str]) -> list[Path]:
    # The working directory may hold anything; Lightning saves in these folders of it.
    roots = [root] if root is not None else ["lightning_logs", "checkpoints"]
    found = {path.absolute() for each in (*roots, *folders) for path in Path(each).rglob("*.ckpt")}
    times = {}
    for path in found:
        with suppress(OSError):  # another process may remove one meanwhile
            if path.is_file():
                times[path] = path.stat().st_mtime_ns
    return sorted(times, key=lambda path: (times[path], str(path)), reverse=True)


def _hpc(root: str | None) -> list[Path]:
    """Return the checkpoint that Lightning saved last when a cluster's time was over."""
    found = [path for path in Path(root or ".").glob("hpc_ckpt_*.ckpt") if path.stem[9:].isdigit()]
    return sorted(found, key=lambda path: int(path.stem[9:]), reverse=True)[:1]


def version_to_continue(chosen: Chosen, root: str | None) -> int | str | None:
    """Return the version whose folder under ``ROOT/lightning_logs`` training goes on in.

    Returns:
        ``None`` where the checkpoint lies elsewhere, or is not the latest of its version.
    """
    folder = Path(chosen.path).absolute().parent
    if folder.name != "checkpoints" or folder.parent.parent != Path(root or ".").absolute() / "lightning_logs":
        return None
    for other in _newest_first(str(folder), ()):
        if other.name == Path(chosen.path).name:
            break
        try:
            if _step(read_checkpoint(other, mmap=True)) > chosen.step:
                return None
        except DataError:
            continue
    version = folder.parent.name
    number = version.removeprefix("version_")
    return int(number) if version != number and number.isdigit() else version


def remove_forgotten(chosen: Chosen) -> None:
    """Remove a checkpoint's neighbours of earlier steps, which a killed run had no time to remove.

    `ModelCheckpoint` with ``save_top_k: 1`` removes a step's checkpoint after it has saved the next one. More than two
    such files were kept on purpose, and stay.
    """
    known = chosen.beside | {Path(chosen.path).name}
    beside = Path(chosen.path).parent.glob("epoch=*.ckpt")
    forgotten = [path for path in beside if STEP_FILE.fullmatch(path.name) and path.name not in known]
    for path in forgotten if len(forgotten) <= 2 else ():
        path.unlink(missing_ok=True)


def _names(state: Any) -> list[Any]:
    if not isinstance(state, dict):
        return []
    return [state.get("best_model_path"), state.get("last_model_path"), *state.get("best_k_models", ())]
