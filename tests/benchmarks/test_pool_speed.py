"""How pools on disk grow: `make bench`.

Near misses of a random output, 155 a pair, at the size of a whole training pool and at ten million. Each size is read
in a process of its own, so that its memory is its own.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lightning_arc.arc import Candidate, PairKey, PoolFile, PoolWriter, as_grid

PER_PAIR = 155
READS = 10_000


def write(n_grids: int, path: Path) -> dict[str, float]:
    """Write a pool of synthetic grids; return the bytes of the same as compact JSON."""
    rng, json_bytes = np.random.default_rng(0), 0
    with PoolWriter(path) as writer:
        for i in range(n_grids // PER_PAIR):
            shape = rng.integers(3, 21, 2)
            output = rng.integers(4, size=shape, dtype=np.int8)
            grids = np.repeat(output.reshape(1, -1), PER_PAIR, 0)
            rows = np.arange(PER_PAIR)[:, None]
            grids[rows, rng.integers(output.size, size=(PER_PAIR, 4))] = rng.integers(10, size=(PER_PAIR, 4))
            found = [Candidate(grid, 1, ("made",), None, False) for grid in grids.reshape(PER_PAIR, *shape)]
            writer.add(PairKey(f"{i // 4:08x}", "train", i % 4), found)
            json_bytes += PER_PAIR * int(shape[0] * (2 * shape[1] + 2) + 2)
    return {"json_bytes": json_bytes}


def memory() -> tuple[float, float]:
    """Return megabytes of this process's own memory and of all it has resident, mapped files included."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS"))


def read(path: Path) -> dict[str, float]:
    before = memory()
    start = time.perf_counter()
    pool = PoolFile(path)
    opened, after = time.perf_counter() - start, memory()
    keys = list(pool)
    rng, none = np.random.default_rng(1), as_grid([[0]])
    places = rng.integers(len(keys), size=READS).tolist()
    known = memory()
    rates = []
    for _ in range(2):  # the second time after a pool of the usual size has been decoded
        start = time.perf_counter()
        drawn = sum(len(pool.draw_wrong(rng, keys[i], none, 5)) for i in places)
        rates.append(READS / (time.perf_counter() - start))
    assert drawn == 5 * READS
    end = memory()
    return {
        "grids": pool.n_grids,
        "bytes": path.stat().st_size,
        "open_seconds": opened,
        "open_mb": after[0] - before[0],
        "reads_first": rates[0],
        "reads_second": rates[1],
        "read_mb": end[0] - known[0],
        "resident_mb": end[1],
    }


def run(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_pools_of_any_size(tmp_path):
    head = f"{'MB':>7} {'as JSON':>9} {'open s':>7} {'open MB':>8} {'pairs/s':>16} {'read MB':>8} {'RSS MB':>7}"
    print(f"\n{'grids':>12} {head}")
    for n_grids in (267_000, 10_000_000):
        path = tmp_path / f"{n_grids}.parquet"
        size, read = run("write", n_grids, path)["json_bytes"], run("read", path)
        rates = f"{read['reads_first']:,.0f}, {read['reads_second']:,.0f}"
        print(
            f"{read['grids']:12,} {read['bytes'] / 1e6:7.1f} {size / read['bytes']:6.1f} x {read['open_seconds']:7.3f} "
            f"{read['open_mb']:8.1f} {rates:>16} {read['read_mb']:8.1f} {read['resident_mb']:7.0f}"
        )


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    print(json.dumps(write(int(given[0]), Path(given[1])) if what == "write" else read(Path(given[0]))))
