"""``make setup`` on machines of every kind, with a stand-in for Python that notes what pip is asked for."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Answers -c like a Python whose only package is the torch that BASE_TORCH or VENV_TORCH names, and installs nothing.
PYTHON = """#!/bin/sh
case "$0" in *.venv/*) torch=$VENV_TORCH ;; *) torch=$BASE_TORCH ;; esac
[ "$1" = -c ] && PYTHONPATH="$TORCHES/$torch" exec "$REAL_PYTHON" -S "$@"
echo "$@" >>"$LOG"
[ "$2" != pip ] || [ -z "$NO_NETWORK" ] || exit 1
if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi
"""
OLD_PYTHON = '#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.6" || exit 1\n'
TORCH = """__version__ = {version!r}
class version: cuda = {cuda!r}
class cuda: is_available = lambda: {usable}
"""
TORCHES = {  # version, CUDA's version, whether the GPU can be used
    "none": None,
    "cpu": ("2.13.0+cpu", None, False),
    "cuda": ("2.13.0+cu130", "13.0", True),
    "old_cuda": ("2.4.1+cu121", "12.1", True),
    "cuda_beyond_the_driver": ("2.13.0+cu130", "13.0", False),
}
Run = Callable[..., subprocess.CompletedProcess]


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path, repo_root: Path) -> Path:
    """The files that set-up reads, in a folder whose name has a space."""
    folder = tmp_path / "a checkout"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt", ".ci/setup"):
        shutil.copy(repo_root / name, folder / name)
    return folder


@pytest.fixture
def set_up(checkout: Path, tmp_path: Path) -> Run:
    """A function that runs ``make setup``; ``gpu``, ``base`` and ``pip`` say what the machine has and pip chooses."""
    tools, torches = tmp_path / "tools", tmp_path / "torches"
    tools.mkdir()
    _executable(tools / "python3", PYTHON)
    _executable(tools / "old_python", OLD_PYTHON)
    for name, torch in TORCHES.items():
        (torches / name).mkdir(parents=True)
        if torch:
            version, cuda, usable = torch
            (torches / name / "torch.py").write_text(TORCH.format(version=version, cuda=cuda, usable=usable))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHON", "TORCH_", "ARGS"))}

    def run(*arguments: str, gpu: bool = False, base: str = "none", pip: str = "cuda", **environment: str):
        _executable(tools / "nvidia-smi", f"#!/bin/sh\nexit {int(not gpu)}\n")
        machine = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "REAL_PYTHON": getattr(sys, "_base_executable", sys.executable),
            "TORCHES": str(torches),
            "BASE_TORCH": base,
            "VENV_TORCH": pip,
            "LOG": str(tmp_path / "log"),
        }
        return subprocess.run(
            ["make", "setup", *arguments],
            cwd=checkout,
            env={**kept, **machine, **environment},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def python_calls(tmp_path: Path) -> Callable[[], list[str]]:
    """A function that gives the lines that Python was called with, since the last time."""

    def lines() -> list[str]:
        log = tmp_path / "log"
        text = log.read_text() if log.exists() else ""
        log.write_text("")
        return text.splitlines()

    return lines


def _errors(done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode != 0
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


def test_a_second_set_up_does_nothing(set_up: Run, python_calls: Callable) -> None:
    assert set_up().returncode == 0
    assert any("-e .[test,notebooks]" in line for line in python_calls())
    assert set_up().returncode == 0
    assert python_calls() == []


def test_changed_requirements_update_the_environment_in_place(
    set_up: Run, python_calls: Callable, checkout: Path
) -> None:
    set_up()
    python_calls()
    (checkout / ".venv" / "kept").touch()
    stamp = (checkout / ".venv" / ".complete").stat().st_mtime
    os.utime(checkout / "setup.cfg", (stamp + 1, stamp + 1))
    assert set_up().returncode == 0
    assert any(line.endswith("-e .[test,notebooks]") for line in python_calls())
    assert (checkout / ".venv" / "kept").exists()


def test_an_interrupted_set_up_is_done_afresh_by_the_same_command(set_up: Run, checkout: Path) -> None:
    assert set_up(NO_NETWORK="1").returncode != 0
    assert not (checkout / ".venv" / ".complete").exists()
    (checkout / ".venv" / "half a package").touch()
    assert set_up().returncode == 0
    assert (checkout / ".venv" / ".complete").exists()
    assert not (checkout / ".venv" / "half a package").exists()


def test_an_environment_whose_python_is_gone_is_built_again(set_up: Run, checkout: Path) -> None:
    set_up()
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert set_up().returncode == 0
    assert python.resolve().exists()


def test_an_old_python_ends_in_one_line(set_up: Run, checkout: Path) -> None:
    assert _errors(set_up("PYTHON=old_python")) == [
        "error: Python 3.9.6 is too old: set PYTHON to a Python 3.11 or newer"
    ]
    assert not (checkout / ".venv").exists()


def test_a_missing_python_ends_in_one_line(set_up: Run) -> None:
    assert _errors(set_up("PYTHON=python9")) == ["error: there is no python9: set PYTHON to a Python 3.11 or newer"]


def test_without_a_gpu_the_exact_torch_is_installed_whatever_its_build(set_up: Run, python_calls: Callable) -> None:
    assert set_up(pip="cpu").returncode == 0
    lines = python_calls()
    assert any(line.endswith("-c constraints.txt torch==2.13.0") for line in lines)
    assert not any("--system-site-packages" in line for line in lines)


def test_on_a_gpu_machine_builds_for_cpu_are_passed_over(set_up: Run, python_calls: Callable) -> None:
    assert set_up(gpu=True).returncode == 0
    assert any(line.endswith("torch==2.13.0,!=2.13.0+cpu") for line in python_calls())


@pytest.mark.parametrize("torch", ["cpu", "cuda_beyond_the_driver"])
def test_on_a_gpu_machine_a_torch_that_cannot_use_it_is_an_error(set_up: Run, checkout: Path, torch: str) -> None:
    (error,) = _errors(set_up(gpu=True, pip=torch))
    assert error.startswith("error: this machine has a GPU, and torch 2.13.0+")
    assert "make setup TORCH_INDEX=URL" in error
    assert not (checkout / ".venv" / ".complete").exists()


@pytest.mark.parametrize("gpu", [True, False])
def test_a_torch_with_cuda_that_the_base_python_has_is_kept(
    set_up: Run, python_calls: Callable, checkout: Path, gpu: bool
) -> None:
    assert set_up(gpu=gpu, base="cuda").returncode == 0
    lines = python_calls()
    assert "-m venv --system-site-packages .venv" in lines or "--without-pip --system-site-packages" in lines[0]
    assert all("constraints.txt" not in line or "-c .venv/constraints.txt" in line for line in lines)
    constraints = (checkout / ".venv" / "constraints.txt").read_text().splitlines()
    assert set((checkout / "constraints.txt").read_text().splitlines()) - set(constraints) == {"torch==2.13.0"}


@pytest.mark.parametrize("base", ["cpu", "old_cuda"])
def test_a_torch_of_the_base_python_that_does_not_fit_is_not_used(
    set_up: Run, python_calls: Callable, base: str
) -> None:
    assert set_up(gpu=True, base=base).returncode == 0
    assert not any("--system-site-packages" in line for line in python_calls())


def test_an_index_for_torch_is_obeyed(set_up: Run, python_calls: Callable) -> None:
    index = "https://download.pytorch.org/whl/cpu"
    assert set_up(f"TORCH_INDEX={index}", gpu=True, base="cuda", pip="cpu").returncode == 0
    assert any(line.endswith(f"--extra-index-url {index} -c constraints.txt torch==2.13.0") for line in python_calls())
