"""Takes the README's picture of a test input in a report: python docs/pictures/take.py [REPORT] [TEST_INPUT].

Needs Debian's chromium and chromium-driver, and selenium (`pip install '.[test]'`).
"""

import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium import webdriver

HERE = Path(__file__).parent
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")


def take(report: Path, name: str, picture: Path, size: tuple[int, int] = (1180, 658)) -> None:
    """Write a picture of a test input, such as ``ce039d91-0``, as the report shows it."""
    with TemporaryDirectory() as folder:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        chrome = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            chrome.get(report.absolute().as_uri())
            shown = chrome.find_element("id", f"test-{name}")
            chrome.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", shown)
            time.sleep(1)  # what comes into view is drawn
            chrome.save_screenshot(str(picture))
        finally:
            chrome.quit()


if __name__ == "__main__":
    given = sys.argv[1:]
    take(Path(given[0] if given else "runs/rank/report.html"), (given[1:] or ["ce039d91-0"])[0], HERE / "report.png")
