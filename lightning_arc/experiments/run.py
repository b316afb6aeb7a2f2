"""Running an experiment: each arm with each seed is trained, then ranks pairs that it has not seen."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_arc.arc.io.files import whole_file, write_json
from lightning_arc.errors import DataError, first_line
from lightning_arc.experiments.report import Ranked, write_report
from lightning_arc.folders import find_config

PROGRAM = (sys.executable, "-m", "lightning_arc.cli")
"""The command line."""


@dataclass
class Arm:
    """One of the compared variants.

    Args:
        fit: settings of its training, as in a config of ``cli.py fit``, beyond those that all arms have.
        predict: settings of its ranking, beyond those that all arms have.
        fit_of: an arm whose training it shares, if only the ranking differs.
    """

    fit: dict[str, Any] = field(default_factory=dict)
    predict: dict[str, Any] = field(default_factory=dict)
    fit_of: str | None = None


def experiment(
    name: str,
    question: str,
    fit: list[str],
    predict: list[str],
    arms: dict[str, Arm],
    seeds: list[int],
    folder: str = "runs/experiments",
    out: str = "docs/results",
    notes: str = "",
    report_only: bool = False,
    max_seconds: float | None = None,
) -> None:
    """Run all missing trainings and rankings, and write ``NAME.md``, ``NAME.svg`` and ``NAME.json`` of all results.

    An interrupted training continues from its last checkpoint, and finished runs are not repeated.

    Args:
        name: name of the experiment, its folder and files.
        question: the question that it asks, a sentence.
        fit: configs of ``cli.py fit`` that all arms have.
        predict: configs of ``cli.py predict`` that all arms have; measures are over their tasks and candidates.
        arms: the compared variants, by name; differences are from the first one.
        seeds: seeds of the trainings.
        folder: where the runs go.
        out: where the results go.
        notes: further text below the table, as Markdown.
        report_only: whether only the report is written, without any run.
        max_seconds: time after which no further run begins; ``null`` for none.

    Raises:
        DataError: names the invalid input, or the arm whose run failed, with its message.
    """
    check(arms, seeds)
    settings = _merged(list(map(_settings, predict)))
    data = settings.get("data") or {}
    if not isinstance(data, Mapping):
        raise DataError(f"predict: data is {data!r}, expected settings by name")
    for needed in ("tasks", "candidates"):
        if not data.get(needed):
            raise DataError(f"predict: no data.{needed} in {', '.join(predict) or 'any config'}")
    root, start = Path(folder) / name, time.monotonic()
    if not report_only:
        for seed in seeds:  # all arms of a seed first, so that an early end leaves arms that can be compared
            for arm_name, arm in arms.items():
                if max_seconds is not None and time.monotonic() - start > max_seconds:
                    print(f"{name}: {max_seconds:.0f} s are over; the same command goes on")
                    break
                _run(root, arm_name, arm, arms, seed, fit, predict)
    runs = {
        arm_name: [
            Ranked(seed, root / f"{arm.fit_of or arm_name}-{seed}", ranking)
            for seed in seeds
            if ((ranking := root / f"{arm_name}-{seed}" / "ranking") / "metrics.json").is_file()
        ]
        for arm_name, arm in arms.items()
    }
    missing = [
        f"{arm_name} with seed {seed}"
        for arm_name in arms
        for seed in seeds
        if seed not in {run.seed for run in runs[arm_name]}
    ]
    if missing:
        print(f"{name}: not there yet, and left out: {', '.join(missing)}")
    if not all(runs.values()):
        raise DataError(f"{name}: an arm has no run yet, so that there is nothing to compare")
    write_report(Path(out), name, question, repeat_command(name, (*fit, *predict), arms), runs, data, notes)


def check(arms: Mapping[str, Arm], seeds: Sequence[int]) -> None:
    """Raise a `DataError` that names the first invalid setting."""
    if len(arms) < 2:
        raise DataError(f"arms: {len(arms)}, expected two at least to compare")
    if not seeds or len(set(seeds)) < len(seeds):
        raise DataError(f"seeds: {list(seeds)}, expected one at least, each once")
    for name, arm in arms.items():
        if arm.fit_of is not None and (arm.fit_of not in arms or arms[arm.fit_of].fit_of is not None):
            raise DataError(f"arms.{name}.fit_of: {arm.fit_of!r} is no arm with a training of its own")
        if arm.fit_of is not None and arm.fit:
            raise DataError(f"arms.{name}: has settings of fit, which it takes from {arm.fit_of} (fit_of)")


def repeat_command(name: str, configs: Sequence[str], arms: Mapping[str, Arm]) -> str:
    """Return the command that repeats an experiment, with the environment variables that its settings name."""
    text = "".join(map(_read, configs)) + repr(arms)
    variables = [f"{variable}=path" for variable in sorted(set(re.findall(r"\$\{(\w+)\}", text)))]
    return " ".join([*variables, f".venv/bin/python cli.py experiment --config configs/experiments/{name}.yaml"])


def _run(
    root: Path, name: str, arm: Arm, arms: Mapping[str, Arm], seed: int, fit: Sequence[str], predict: Sequence[str]
) -> None:
    trained, owner = root / f"{arm.fit_of or name}-{seed}", arms[arm.fit_of or name]
    settings = {**owner.fit, "seed_everything": seed}
    _check_same(trained / "fit.json", fit, settings)
    if not (trained / "trained").is_file():
        again = ["--ckpt_path", "last"] if any(trained.rglob("*.ckpt")) else []
        _start("fit", f"{arm.fit_of or name}, seed {seed}", fit, settings, trained, again)
        _newest(trained)
        (trained / "trained").touch()
    ranking = root / f"{name}-{seed}" / "ranking"
    _check_same(ranking / "predict.json", predict, arm.predict)
    if not (ranking / "metrics.json").is_file():
        _start("predict", f"{name}, seed {seed}", predict, arm.predict, ranking, ["--ckpt_path", str(_newest(trained))])


def _newest(trained: Path) -> Path:
    """Return the last checkpoint of a training that ended."""
    found = list(trained.rglob("last*.ckpt"))
    if not found:
        raise DataError(f"{trained}: the training left no last.ckpt to rank with (checkpoint.save_last)")
    return max(found, key=lambda path: path.stat().st_mtime)


def _start(
    command: str, about: str, configs: Sequence[str], settings: Mapping[str, Any], folder: Path, more: Sequence[str]
) -> None:
    """Run a command to its end, with its output in ``log.txt`` of its folder.

    Raises:
        DataError: if it fails, with the last line that it printed.
    """
    path = folder / f"{command}.yaml"
    with whole_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(dict(settings), sort_keys=False) if settings else "{}\n")
    words = [*PROGRAM, command]
    for config in (*configs, str(path)):
        words += ["--config", config]
    words += ["--trainer.default_root_dir", str(folder), *more]
    print(f"{about}: {shlex.join(words)}", flush=True)
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        except BaseException:  # Ctrl-C, or a signal: the command keeps what it has
            process.terminate()
            process.wait()
            raise
    if status:
        lines = [line for line in (folder / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
        raise DataError(f"{about}: {lines[-1].strip() if lines else f'ended with status {status}'} ({folder}/log.txt)")


def _check_same(path: Path, configs: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Write the settings of a run beside it; refuse to go on with a run of other settings."""
    recorded = {"configs": {config: _read(config) for config in configs}, "settings": settings}
    if not path.is_file():
        write_json(path, recorded)
    elif json.loads(path.read_text()) != json.loads(json.dumps(recorded)):
        raise DataError(f"{path.parent}: was begun with other settings; remove it or set another folder")


def _read(config: str) -> str:
    return Path(find_config(config)).read_text()


def _settings(config: str) -> Mapping[str, Any]:
    """Return the settings in a config."""
    try:
        settings = yaml.safe_load(_read(config)) or {}
    except yaml.YAMLError as error:
        raise DataError(f"{config}: is no YAML: {first_line(error)}") from error
    if not isinstance(settings, Mapping):
        raise DataError(f"{config}: expected settings by name")
    return settings


def _merged(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the merged settings of several configs; later ones win."""
    merged: dict[str, Any] = {}
    for config in configs:
        for key, value in config.items():
            before = merged.get(key)
            if isinstance(before, Mapping) and isinstance(value, Mapping):
                value = _merged([before, value])
            merged[key] = value
    return merged
