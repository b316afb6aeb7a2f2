"""Commands, links and paths in README.md and docs/: options, configs and files exist. Other tests run the commands."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LEFT_OUT = "cautious.Cautious"
"""A class that the reader of docs/extending.md writes; `test_extending` runs its command."""


def commands() -> list[str]:
    """The commands of all pages, one line each; a `make` command is replaced by the commands that it would run."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = re.sub(r"^~~~\n.*?^~~~\n", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.startswith(("make ", "ARC_DATA", "BEFORE")) else []
                made = "make" in words and made_by(words[words.index("make") :])
                found |= dict.fromkeys(made or [line])
    lines = dict.fromkeys(" ".join(line.split()) for line in found)
    return [line for line in lines if re.search(r"(cli\.py|lightning-arc) [a-z]", line) and LEFT_OUT not in line]


def made_by(words: list[str]) -> list[str]:
    """The commands that a `make` command would run."""
    alone = {"PATH": os.environ["PATH"]}  # without the variables of a `make` that runs the tests
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\\\n", " ").splitlines()


def arguments(line: str) -> list[str]:
    """A command's arguments, the optional ones included, without `--ckpt_path`, whose file does not exist here."""
    line = re.sub(r"(?<![\w'])\[(--[^]]*)\]", r"\1", line.replace("…", ""))
    words = shlex.split(line, comments=True)
    start = next(i for i, word in enumerate(words) if word.endswith(("cli.py", "lightning-arc")))
    kept, words = [], words[start + 1 :]
    while words:
        if words[0] == "--ckpt_path":
            words = words[1:]
        else:
            kept.append(words[0])
        words = words[1:]
    return kept


@pytest.mark.parametrize("line", commands())
def test_every_documented_command_has_options_and_configs_that_exist(cli, line, monkeypatch, tmp_path):
    monkeypatch.setenv("ARC_DATA", str(tmp_path))
    ranker = str(ROOT / "lightning_arc/bundled/model/ranker.yaml")
    words = [ranker if word == "ranker.yaml" else word for word in arguments(line)]
    printed = cli(*words, "--print_config")
    assert printed.count(":") > 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_to_files_of_the_repository(page):
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:lightning_arc|configs|tests|notebooks|docs)/[\w./-]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
