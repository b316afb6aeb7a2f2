"""How long a command takes until it does something: `make bench`."""

import os
import subprocess
import sys
import time
from pathlib import Path

from .ways import table

ROOT = Path(__file__).parents[2]


def test_seconds_until_help_and_until_the_first_test_input_is_ranked(tmp_path):
    environment, rows = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}, []
    for name, words in {
        "cli.py --help": ["--help"],
        "cli.py predict --help, the first time": ["predict", "--help"],
        "cli.py predict --help, later": ["predict", "--help"],
        "cli.py predict, a mistyped option": ["predict", "--data.n_viewz", "3"],
    }.items():
        start = time.perf_counter()
        subprocess.run([sys.executable, "cli.py", *words], cwd=ROOT, env=environment, capture_output=True)
        rows.append((name, f"{time.perf_counter() - start:.1f}"))
    command = [sys.executable, "cli.py", "predict", "--config", "configs/rank.yaml", "--data.batch_size=1"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--trainer.default_root_dir={tmp_path}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = tmp_path / "evidence-0.jsonl"
    while not (journal.is_file() and journal.read_bytes().count(b"\n") > 1) and process.poll() is None:
        time.sleep(0.05)
    rows.append(("cli.py predict, first view ranked", f"{time.perf_counter() - start:.1f}"))
    process.terminate()
    process.wait()
    table("start-up", ("", "seconds"), rows)
