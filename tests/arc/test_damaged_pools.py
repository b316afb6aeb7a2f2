"""Damaged pools: every one is read as it was written or refused in one line, with bounded memory."""

import base64
import io
import json
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_arc.arc import Candidate, CandidatePool, Pair, PairKey, Task, as_grid, open_pool, write_pool
from lightning_arc.errors import DataError

INDEX = np.dtype([("name", "<u8"), ("start", "<i8"), ("rows", "<i4"), ("place", "<i4")])
ONE = as_grid([[1]])
TASKS = {f"t{i}": Task(f"t{i}", (Pair(ONE, ONE),) * 2, (Pair(ONE, ONE),)) for i in range(20)}
KEYS = [key for task in TASKS.values() for key in task.keys()]  # noqa: SIM118 - a task is no dict
MOST_MEMORY = 300 * 2**20


def a_pool() -> CandidatePool:
    rng, pool = np.random.default_rng(0), CandidatePool()
    for key in KEYS:
        pool.open(key)
        for n in range(int(rng.integers(0, 120))):
            grid = as_grid(rng.integers(10, size=rng.integers(1, 7, size=2)))
            pool.add(
                key, Candidate(grid, n % 3 + 1, ("a", "b")[: n % 2 + 1], [None, -1.5][n % 2], [None, False][n % 2])
            )
    return pool


def contents(pool) -> list:
    """Everything that a pool holds, in each way of reading it."""
    rng = np.random.default_rng(0)
    read = [list(pool)]
    for key in KEYS:
        read.append([(c.grid.tolist(), c.votes, c.sources, c.log_likelihood, c.correct) for c in pool[key]])
        read.append([grid.tolist() for grid in pool.wrong(key, ONE)])
        read.append([grid.tolist() for grid in pool.draw_wrong(rng, key, ONE, 2)])
    return read


def parts(whole: bytes) -> tuple[pa.Table, dict[bytes, bytes], dict[str, bytes]]:
    """A pool's table, its footer's metadata, and its index and names as bytes."""
    file = pq.ParquetFile(io.BytesIO(whole))
    texts = json.loads(file.metadata.metadata[b"pairs"])
    return (
        file.read(),
        dict(file.metadata.metadata),
        {name: zlib.decompress(base64.b85decode(text)) for name, text in texts.items()},
    )


def joined(table: pa.Table, metadata: dict[bytes, bytes], row_group_size: int = 2**20, **options) -> bytes:
    """A Parquet file of a table with a footer's metadata."""
    kept = {key: value for key, value in metadata.items() if key != b"ARROW:schema"}
    out = io.BytesIO()
    options = {"use_dictionary": ["task_id", "split", "sources"], "compression": "zstd"} | options
    pq.write_table(table.replace_schema_metadata(kept), out, row_group_size, **options)
    return out.getvalue()


def with_texts(metadata: dict[bytes, bytes], texts: dict[str, bytes]) -> dict[bytes, bytes]:
    written = {name: base64.b85encode(zlib.compress(data)).decode() for name, data in texts.items()}
    return metadata | {b"pairs": json.dumps(written).encode()}


def changed_types(whole: bytes) -> Iterator[tuple[str, bytes]]:
    table, metadata, _ = parts(whole)
    n = table.num_rows
    others = [
        pa.array(["x"] * n),
        pa.array([1.5] * n),
        pa.array([float("nan")] * n),
        pa.array([2**40] * n),
        pa.array([b"\x01"] * n),
        pa.array([[1]] * n),
        pa.array([{"a": 1}] * n),
        pa.nulls(n),
        pa.array([True] * n),
        pa.array(np.zeros(n, np.float16)),
    ]
    for i, field in enumerate(table.schema):
        for other in others:
            if other.type != field.type:
                yield f"{field.name} as {other.type}", joined(table.set_column(i, field.name, other), metadata)
        yield f"without {field.name}", joined(table.drop_columns([field.name]), metadata)
        yield f"{field.name} twice", joined(table.append_column(field.name, table[i]), metadata)


def changed_values(whole: bytes) -> Iterator[tuple[str, bytes]]:
    table, metadata, _ = parts(whole)
    n = table.num_rows
    values = {
        "task_id": [None, "", "t19", "\0", "x" * 300],
        "split": [None, "", "test2"],
        "index": [None, -1, 7, 2**31 - 1],
        "height": [None, 0, -1, 31, 127],
        "width": [None, 0, -1, 31, -128],
        "cells": [None, b"", b"\x0a", b"\xff", b"\x00" * 901],
        "votes": [None, 0, -1, -(2**31)],
        "sources": [None, [None]],
        "log_likelihood": [float("nan"), float("inf"), -float("inf")],
    }
    for name, wrong in values.items():
        place = table.schema.get_field_index(name)
        for value in wrong:
            for where in ([0], [n // 2], [n - 1], range(n)):
                column = table[name].to_pylist()
                for row in where:
                    column[row] = value
                array = pa.array(column, table.schema.field(place).type)
                yield f"{name} {value!r:.20} in {len(where)}", joined(table.set_column(place, name, array), metadata)


def changed_rows(whole: bytes) -> Iterator[tuple[str, bytes]]:
    table, metadata, _ = parts(whole)
    n = table.num_rows
    yield "rows reversed", joined(table.take(pa.array(range(n - 1, -1, -1))), metadata)
    yield "rows shifted", joined(pa.concat_tables([table.slice(1), table.slice(0, 1)]), metadata)
    yield "a row less", joined(table.slice(1), metadata)
    yield "a row more", joined(pa.concat_tables([table, table.slice(0, 1)]), metadata)
    yield "no rows", joined(table.slice(0, 0), metadata)
    yield "pairs across row groups", joined(table, metadata, row_group_size=7)
    yield "with a dictionary of cells", joined(table, metadata, use_dictionary=True)
    for i in range(20):
        order = np.random.default_rng(i).permutation(n)
        yield "rows in another order", joined(table.take(pa.array(order)), metadata)


def changed_indexes(whole: bytes) -> Iterator[tuple[str, bytes]]:
    table, metadata, texts = parts(whole)
    index = np.frombuffer(texts["index"], INDEX)

    def with_index(data: bytes) -> bytes:
        return joined(table, with_texts(metadata, texts | {"index": data}))

    def with_names(data: bytes) -> bytes:
        return joined(table, with_texts(metadata, texts | {"names": data}))

    for name, data in {
        "empty": b"",
        "not whole": index.tobytes()[:-5],
        "reversed": index[::-1].tobytes(),
        "shuffled": np.random.default_rng(0).permutation(index).tobytes(),
        "twice": np.concatenate([index, index]).tobytes(),
        "zeros": bytes(10**8 * 4),
        "an entry less": index[1:].tobytes(),
        "an entry more": np.concatenate([index, index[-1:]]).tobytes(),
        "text": b"nothing",
    }.items():
        yield f"index {name}", with_index(data)
    for field in INDEX.names:
        for value in (0, 1, -1, 2**31 - 1, -(2**31), 10**6):
            for row in (0, len(index) // 2, len(index) - 1):
                changed = index.copy()
                changed[field][row] = np.array(value, np.int64).astype(INDEX[field])
                if changed.tobytes() != index.tobytes():
                    yield f"index {field} {value}", with_index(changed.tobytes())
        for i in range(10):
            changed = index.copy()
            changed[field] = np.random.default_rng(i).permutation(index[field])
            if field != "rows" or (changed["rows"] != index["rows"]).any():
                yield f"index {field} shuffled", with_index(changed.tobytes())
    names = json.loads(texts["names"])
    for name, value in {
        "none": [],
        "less": names[1:],
        "more": [*names, ["x", "test", 0]],
        "reversed": names[::-1],
        "numbers": [1] * len(names),
        "short": [name[:2] for name in names],
        "nested": [[name] for name in names],
        "null": None,
        "an object": {"a": names},
        "of another split": [[task_id, "other", i] for task_id, _, i in names],
        "with fractions": [[task_id, split, i + 0.5] for task_id, split, i in names],
        "negative": [[task_id, split, -i - 1] for task_id, split, i in names],
    }.items():
        yield f"names {name}", with_names(json.dumps(value).encode())
    for name, data in {
        "deep": b"[" * 10**5,
        "many lists": b"[" + b"[]," * (2 * 10**7) + b"[]]",
        "many objects": b"[" + b"{}," * (2 * 10**7) + b"{}]",
        "no JSON": b"\xff\xfe",
        "a long one": b'[["' + b"x" * 10**8 + b'", "test", 0]]',
        "nothing": b"",
    }.items():
        yield f"names {name}", with_names(data)
    for pairs in (
        b"",
        b"{}",
        b"[]",
        b"3",
        b"null",
        b'{"names": 1, "index": 2}',
        b'{"names": "~~", "index": "\\u00e4"}',
    ):
        yield "pairs", joined(table, metadata | {b"pairs": pairs})
    text = json.loads(metadata[b"pairs"])
    for name in ("names", "index"):
        for cut in (1, 5, len(text[name]) // 2):
            yield (
                "index cut",
                joined(table, metadata | {b"pairs": json.dumps(text | {name: text[name][:-cut]}).encode()}),
            )
    yield "another format", joined(table, metadata | {b"format": b"lightning-arc-pool-9"})
    yield "no format", joined(table, {key: value for key, value in metadata.items() if key != b"format"})
    yield "no index", joined(table, {key: value for key, value in metadata.items() if key != b"pairs"})


def changed_bytes(whole: bytes, n: int) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for cut in rng.integers(0, len(whole), n).tolist():
        yield f"cut at {cut}", whole[:cut]
        yield f"without the first {cut}", whole[cut:]
    for first, last in ((0, footer), (footer, len(whole)), (footer, footer + 1000), (len(whole) - 1000, len(whole))):
        for place in rng.integers(first, last, n).tolist():
            data = bytearray(whole)
            data[place] ^= int(rng.integers(1, 256))
            yield f"byte {place}", bytes(data)
        for place in rng.integers(first, last - 8, n // 2).tolist():
            data = bytearray(whole)
            data[place : place + 8] = [b"\xff" * 8, bytes(8), b"\x7f" * 8][place % 3]
            yield f"bytes {place}", bytes(data)
    for size in (0, 8, 2**31 - 1, 2**32 - 1, len(whole)):
        yield f"a footer of {size}", whole[:-8] + size.to_bytes(4, "little") + whole[-4:]


def huge(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Small files that declare, or expand to, very much."""
    table, metadata, texts = parts(whole)
    key = PairKey(*(table[name][0].as_py() for name in ("task_id", "split", "index")))
    index = np.frombuffer(texts["index"], INDEX)
    entry = index[index["place"] == [tuple(name) for name in json.loads(texts["names"])].index(tuple(key))].copy()

    def repeated(n: int, **values: str | bytes) -> bytes:
        """A pool whose only pair has the first row many times, some of its values others, written once."""
        entry["start"], entry["rows"], entry["place"] = 0, n, 0
        about = with_texts(metadata, {"names": json.dumps([list(key)]).encode(), "index": entry.tobytes()})
        zeros = pa.array(np.zeros(n, np.int32))
        many = table.slice(0, 1).take(zeros)
        for name, value in values.items():
            kind = pa.binary() if isinstance(value, bytes) else pa.string()
            column = pa.DictionaryArray.from_arrays(zeros, pa.array([value], kind))
            many = many.set_column(table.schema.get_field_index(name), name, column)
        return joined(many, about, use_dictionary=True, store_schema=False)

    yield "many rows in a group", repeated(2**18 + 1)
    yield "many rows of large cells", repeated(2**20, cells=b"\x01" * 900)
    yield "long cells", repeated(2000, cells=bytes(10**6))
    yield "long ids", repeated(2000, task_id="x" * 10**6)
    yield "long splits", repeated(2000, split="x" * 10**6)


def damages(whole: bytes, n: int) -> Iterator[tuple[str, bytes]]:
    for kind in (changed_types, changed_values, changed_rows, changed_indexes, huge):
        yield from kind(whole)
    yield from changed_bytes(whole, n)


def peak_memory() -> int:
    """The most bytes that this process took since the last call, where Linux counts them."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])


def check(path, name: str, expected: list) -> str | None:
    """Return what is wrong with how a damaged pool is read, ``None`` if nothing is."""
    began = time.monotonic()
    peak_memory()
    memory = peak_memory()
    try:
        found = contents(open_pool([path], TASKS))
    except DataError as error:
        if not re.match(re.escape(f"{path}: ") + ".", str(error)) or len(str(error)) > 400:
            return f"{name}: says {error}"
    except Exception as error:
        return f"{name}: raises {type(error).__name__}: {error!s:.80}"
    else:
        if found != expected:
            return f"{name}: is read with other values"
    if (more := peak_memory() - memory) > MOST_MEMORY:
        return f"{name}: takes {more / 2**20:.0f} MB"
    return None if time.monotonic() - began < 5 else f"{name}: takes {time.monotonic() - began:.0f} s"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_damaged_pool_is_read_as_it_was_or_refused_in_one_line(tmp_path):
    write_pool(a_pool(), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    expected = contents(open_pool([tmp_path / "whole.parquet"], TASKS))
    path = tmp_path / "p.parquet"
    wrong, n = [], 0
    for name, data in damages(whole, 25):
        path.write_bytes(data)
        n += 1
        if (fault := check(path, name, expected)) is not None:
            wrong.append(fault)
    assert n > 600 and wrong == []
