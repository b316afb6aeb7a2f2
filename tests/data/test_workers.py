import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOADS = """
from lightning_arc.data.loader import BatchStream, ResumableLoader

def batch(numbers):
    return bytes(10**6)  # more than a pipe holds, so that workers wait for their parent

loader = iter(ResumableLoader(BatchStream(batch, 1, 0, 1), 10**6, num_workers=2))
next(loader)
print("loading", flush=True)
while True:
    {then}
"""


def processes(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def soon(condition, seconds: float = 2) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def loading(repo_root, request):
    """A process with two workers, in a group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOADS.format(then=request.param)],
        cwd=repo_root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "loading\n", process.stderr.read()
    assert len(processes(process.pid)) == 3
    yield process
    for pid in processes(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")
@pytest.mark.parametrize("loading", ["import time; time.sleep(0.1)"], indirect=True)
def test_workers_end_with_a_parent_that_is_killed(loading):
    loading.send_signal(signal.SIGKILL)
    assert soon(lambda: not processes(loading.pid))


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")
@pytest.mark.parametrize(
    "loading",
    ["import signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(2, signal.SIG_IGN); time.sleep(0.1)"],
    indirect=True,
)
def test_workers_pass_over_signals_to_the_whole_group_until_the_parent_ends_them(loading):
    time.sleep(0.3)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.killpg(loading.pid, number)
    time.sleep(0.3)
    assert len(processes(loading.pid)) == 3
