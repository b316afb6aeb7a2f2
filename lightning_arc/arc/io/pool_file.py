"""Candidate pools on disk: Parquet files of any size that open in an instant and are read pair by pair.

A row is a candidate, the rows of a pair are adjacent, and the file's footer holds an index from pairs to rows. Row
groups are decoded on access; a few decoded ones are cached.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_arc.arc.candidates import Candidate, CandidatePool, choose_wrong
from lightning_arc.arc.grid import MAX_SIDE, N_COLOURS, Grid, same_grid
from lightning_arc.arc.io.files import expand, whole_file
from lightning_arc.arc.io.pool_format import (
    DAMAGED,
    MAX_GROUP_ROWS,
    SCHEMA,
    is_unusual,
    open_parquet,
    written_out,
)
from lightning_arc.arc.io.pool_index import decode_index, decode_names, encode_index, pair_number
from lightning_arc.arc.task import PairKey, Task
from lightning_arc.errors import DataError, first_line

SHAPES = ("height", "width", "cells")
ROWS_PER_GROUP = 2048
CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class _Rows:
    """The grids of a row group: the concatenated cells of all rows, and the offset at which each row's cells begin."""

    heights: NDArray[np.int8]
    widths: NDArray[np.int8]
    offsets: NDArray[np.int32]
    cells: NDArray[np.int8]

    def grid(self, row: int) -> Grid:
        return self.cells[self.offsets[row] : self.offsets[row + 1]].reshape(self.heights[row], self.widths[row])

    @property
    def n_bytes(self) -> int:
        return self.heights.nbytes + self.widths.nbytes + self.offsets.nbytes + self.cells.nbytes


class PoolWriter:
    """Writes a pool pair by pair; the file appears only when it is complete.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._columns: list[list[Any]] = [[] for _ in SCHEMA]
        self._names: list[PairKey] = []
        self._counts: list[int] = []

    def __enter__(self) -> "PoolWriter":
        with ExitStack() as stack:
            temporary = stack.enter_context(whole_file(self.path))
            options = {"use_dictionary": ["task_id", "split", "sources"], "write_statistics": False}
            options["write_page_checksum"] = True
            self._file = stack.enter_context(
                pq.ParquetWriter(temporary, SCHEMA, compression="zstd", compression_level=9, **options)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            with self._stack:
                self._flush()
                self._file.add_key_value_metadata({"pairs": encode_index(self._names, self._counts)})
            return None
        return self._stack.__exit__(*error)

    def add(self, key: PairKey, candidates: Sequence[Candidate]) -> None:
        """Write all candidates of a pair; a pair can be written only once.

        Raises:
            DataError: if there are more than a row group may hold.
            ValueError: if the index says that the pair was written before.
        """
        if len(candidates) > MAX_GROUP_ROWS:
            raise DataError(f"{self.path}: {key}: has {len(candidates)} candidates, at most {MAX_GROUP_ROWS} fit")
        self._names.append(key)
        self._counts.append(len(candidates))
        for c in candidates:
            row = (*key, *c.grid.shape, c.grid.tobytes(), c.votes, list(c.sources), c.log_likelihood, c.correct)
            for column, value in zip(self._columns, row, strict=True):
                column.append(value)
        if len(self._columns[0]) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._columns[0]:
            arrays = [pa.array(c, f.type) for c, f in zip(self._columns, SCHEMA, strict=True)]
            self._file.write_table(pa.table(arrays, schema=SCHEMA))
            self._columns = [[] for _ in SCHEMA]


def write_pool(pool: CandidatePool, path: str | Path, tasks: Mapping[str, Task] | None = None) -> None:
    """Write a pool as Parquet (zstd), every pair that was asked about.

    Args:
        pool: what to write.
        path: the file.
        tasks: if given, candidates are marked right or wrong by the known outputs of these tasks.
    """
    with PoolWriter(path) as writer:
        for key in pool:
            right = tasks[key.task_id].pair(key).output if tasks and key.task_id in tasks else None
            writer.add(key, [c if right is None else c.judged(same_grid(c.grid, right)) for c in pool[key]])


class PoolFile:
    """A pool on disk that is read like a `CandidatePool`.

    Opening reads the footer and keeps it: the index of pairs (24 bytes each) and the places of the row groups, together
    about six bytes of memory per candidate. Decoded row groups are cached up to a bound, whatever the size of the file.
    The object can be sent to other processes, each of which opens the file for itself.

    Args:
        path: the file.
        cache_bytes: bound of the cache of decoded row groups.

    Raises:
        DataError: if it is no pool; on access, if a row is invalid.
    """

    _last: tuple[int, pa.Table] | None
    """The row group that was read last, and its columns except those of the grids."""

    def __init__(self, path: str | Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.path, self.cache_bytes = expand(path), cache_bytes
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "cache_bytes": self.cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.cache_bytes = state["path"], state["cache_bytes"]
        self._open()

    def __getitem__(self, key: PairKey) -> tuple[Candidate, ...]:
        """Return a pair's candidates in the file's order; none for an unknown pair."""
        found = self._find(key)
        if found is None or not found[2]:
            return ()
        group, row, n = found
        rows = self._rows(group)
        others = [name for name in SCHEMA.names if name not in SHAPES]
        if self._last is None or self._last[0] != group:  # pairs are mostly asked for one after the other
            self._last = group, self._read(self._file, group, others)
        columns = [column.to_pylist() for column in self._last[1].slice(row, n).columns]
        candidates = []
        for i, values in enumerate(zip(*columns, strict=True), row):
            about = dict(zip(others, values, strict=True))
            if (about["task_id"], about["split"], about["index"]) != tuple(key) or about["votes"] < 1:
                raise DataError(f"{self.path}: {key}: its rows are not where the index says, or have no votes")
            if not math.isfinite(about["log_likelihood"] or 0.0):
                raise DataError(f"{self.path}: {key}: a log_likelihood is {about['log_likelihood']}, expected a number")
            sources = tuple(about["sources"])
            if None in sources:
                raise DataError(f"{self.path}: {key}: column sources has missing values")
            candidates.append(
                Candidate(rows.grid(i), about["votes"], sources, about["log_likelihood"], about["correct"])
            )
        return tuple(candidates)

    def __contains__(self, key: PairKey) -> bool:
        return self._find(key) is not None

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[PairKey]:
        """Iterate over the pairs, in the file's order."""
        try:
            return iter(decode_names(self._pairs["names"], self._index))
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error

    @property
    def n_grids(self) -> int:
        """Distinct grids of all pairs together."""
        return int(self._starts[-1])

    def wrong(self, key: PairKey, right: Grid) -> list[Grid]:
        """Return a pair's candidates that differ from its right output."""
        found = self._find(key)
        if found is None:
            return []
        group, row, n = found
        grids = map(self._rows(group).grid, range(row, row + n)) if n else ()
        return [grid for grid in grids if not same_grid(grid, right)]

    def draw_wrong(self, rng: np.random.Generator, key: PairKey, right: Grid, n: int) -> list[Grid]:
        """Draw up to ``n`` of a pair's candidates that differ from its right output, without replacement."""
        found = self._find(key)
        if found is None or not found[2]:
            return []
        group, row, n_rows = found
        rows = self._rows(group)
        return choose_wrong(rng, n_rows, lambda i: rows.grid(row + i), right, n)

    def _open(self) -> None:
        try:
            self._file, self._pairs, self._starts = open_parquet(self.path)
            self._index = decode_index(self._pairs["index"], self._starts)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error
        self._cache: OrderedDict[int, _Rows] = OrderedDict()
        self._cached_bytes = 0
        self._last = None
        self._process = os.getpid()

    def _find(self, key: PairKey) -> tuple[int, int, int] | None:
        """Return row group, first row in it, and number of rows of a pair; ``None`` if it is not there."""
        name = pair_number(key)
        place = int(np.searchsorted(self._index["name"], name))
        if place == len(self._index) or self._index["name"][place] != name:
            return None
        start = int(self._index["start"][place])
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        return group, start - int(self._starts[group]), int(self._index["rows"][place])

    def _rows(self, group: int) -> _Rows:
        if os.getpid() != self._process:  # a file position is not shared with another process
            self._open()
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        rows = self._decode(group)
        self._cache[group] = rows
        self._cached_bytes += rows.n_bytes
        while self._cached_bytes > self.cache_bytes and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].n_bytes
        return rows

    def _decode(self, group: int) -> _Rows:
        table = self._read(self._file, group, ["height", "width"])
        heights, widths = (table[name].combine_chunks().to_numpy().astype(np.int64) for name in ("height", "width"))
        cells = self._read_cells(group, heights * widths)
        _, offsets, data = cells.buffers()
        offsets = np.frombuffer(offsets, np.int32)[cells.offset : cells.offset + len(cells) + 1]
        values = np.frombuffer(data, np.int8)
        sides = np.concatenate([heights, widths])
        fits = sides.min() >= 1 and sides.max() <= MAX_SIDE and (np.diff(offsets) == heights * widths).all()
        if not fits or values[offsets[0] : offsets[-1]].view(np.uint8).max() >= N_COLOURS:
            raise DataError(f"{self.path}: row group {group} has cells that are no grids")
        return _Rows(heights.astype(np.int8), widths.astype(np.int8), offsets, values)

    def _read_cells(self, group: int, n_cells: NDArray[np.int64]) -> pa.BinaryArray:
        if not is_unusual(self._file.metadata.row_group(group).total_byte_size, n_cells):
            return self._read(self._file, group, ["cells"])["cells"].combine_chunks()
        try:
            careful = open_parquet(self.path, careful=True)[0]
        except DataError as error:  # the file was changed since it was opened
            raise DataError(f"{self.path}: {error}") from error
        with careful as file:
            cells = self._read(file, group, ["cells"])["cells"].combine_chunks()
        if (pc.max(pc.binary_length(cells.dictionary)).as_py() or 0) > MAX_SIDE**2:
            raise DataError(f"{self.path}: row group {group} has cells that are no grids")
        return cells.cast(pa.binary())

    def _read(self, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        try:
            table = written_out(file.read_row_group(group, columns=columns, use_threads=False))
        except DataError as error:
            raise DataError(f"{self.path}: row group {group}: {error}") from error
        except DAMAGED as error:
            raise DataError(f"{self.path}: row group {group} is damaged: {first_line(error)}") from error
        if table.num_rows != self._starts[group + 1] - self._starts[group]:
            raise DataError(f"{self.path}: row group {group} is damaged: it has {table.num_rows} rows")
        for name in columns:
            if name not in ("log_likelihood", "correct") and table[name].null_count:
                raise DataError(f"{self.path}: column {name} has missing values")
        return table
