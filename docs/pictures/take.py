"""Takes the README's pictures with a headless Chromium.

    python docs/pictures/take.py report [REPORT] [TEST_INPUT]   # a test input in the report of a ranking
    python docs/pictures/take.py board [FOLDER]                 # trainings of a folder in TensorBoard

Needs Debian's chromium and chromium-driver, and selenium (`pip install '.[test]'`).
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium import webdriver

HERE = Path(__file__).parent
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
PORT = 6123


@contextmanager
def chromium(width: int, height: int) -> Iterator[webdriver.Chrome]:
    """Yield a browser with a window of this size."""
    with TemporaryDirectory() as folder:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        chrome = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            yield chrome
        finally:
            chrome.quit()


def report(path: str = "runs/rank/report.html", name: str = "ce039d91-0") -> None:
    """Show a test input as the report does."""
    with chromium(1180, 658) as chrome:
        chrome.get(Path(path).absolute().as_uri())
        shown = chrome.find_element("id", f"test-{name}")
        chrome.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", shown)
        time.sleep(1)  # what comes into view is drawn
        chrome.save_screenshot(str(HERE / "report.png"))


def board(folder: str = "runs") -> None:
    """Show a training in TensorBoard."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            time.sleep(15)
            with chromium(1400, 1000) as chrome:
                chrome.get(f"http://127.0.0.1:{PORT}/?tagFilter=(auroc|exact|loss%24|top2%24)#timeseries")
                time.sleep(20)
                chrome.save_screenshot(str(HERE / "board.png"))
        finally:
            server.terminate()


if __name__ == "__main__":
    {"report": report, "board": board}[sys.argv[1]](*sys.argv[2:])
