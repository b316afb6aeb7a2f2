"""JSON files and zips of any damage: each is read or refused in one short line, with bounded memory and time."""

import bz2
import io
import json
import lzma
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from lightning_arc.arc import Pair, Task, as_grid, read_candidates, read_submission
from lightning_arc.arc.io.tasks import read_all_tasks
from lightning_arc.errors import DataError

PAIR = {"input": [[0, 1]], "output": [[1, 0]]}
TASK = {"train": [PAIR, PAIR], "test": [PAIR]}
ONE = as_grid([[1]])
TASKS = {"a": Task("a", (Pair(ONE, ONE),), (Pair(ONE, None),))}
KINDS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def unusual_values() -> Iterator[tuple[str, str]]:
    """JSON texts that stand for a value."""
    deep = 900
    yield from {
        "deep": "[" * deep + "]" * deep,
        "deep objects": '{"a":' * deep + "1" + "}" * deep,
        "too deep": "[" * 10**5 + "]" * 10**5,
        "a huge integer": "1" + "0" * 10_000,
        "a large integer": "1" + "0" * 4000,
        "a huge float": "1e99999",
        "NaN": "NaN",
        "Infinity": "-Infinity",
        "a lone surrogate": '"\\ud800"',
        "a NUL": '"\\u0000"',
        "a long text": '"' + "x" * 10**6 + '"',
        "true": "true",
        "null": "null",
        "a fraction": "1.0",
        "no list": "{}",
        "nothing": "[]",
        "empty rows": "[[]]",
        "ragged": "[[1],[1,2]]",
        "a text grid": '[["1"]]',
        "large": json.dumps([[0] * 31]),
        "a very large grid": json.dumps([[0] * 1000] * 100),
        "minus": "[[-1]]",
        "ten": "[[10]]",
    }.items()


def texts() -> Iterator[tuple[str, bytes]]:
    """Files in which one place holds an unusual value."""
    places = {
        "itself": "%s",
        "a task": '{"a": %s}',
        "train": '{"a": {"train": %s, "test": [{"input": [[1]]}]}}',
        "test": '{"a": {"train": [{"input": [[1]], "output": [[1]]}], "test": %s}}',
        "pair": '{"a": {"train": [%s], "test": [{"input": [[1]]}]}}',
        "input": '{"a": {"train": [{"input": %s, "output": [[1]]}], "test": [{"input": [[1]]}]}}',
        "cell": '{"a": {"train": [{"input": [[%s]], "output": [[1]]}], "test": [{"input": [[1]]}]}}',
        "output": '{"a": {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]], "output": %s}]}}',
        "code": '{"a": {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]]}], "code": %s}}',
        "n_train": '{"a": {"train": [{"input": [[1]], "output": [[1]]}], "n_train": %s}}',
        "verifier": '{"a": {"n_train": 1, "train": [{"attempt_1": %s}, {"input": %s}]}}',
        "attempts": '{"a": [%s]}',
        "attempt": '{"a": [{"attempt_1": %s, "attempt_2": [[1]]}]}',
        "answer": '{"a": [{"attempt_1": {"answer": %s}}]}',
        "named": '[{"name": "a", "data": %s}]',
        "name": '[{"name": %s, "data": {"train": [], "test": []}}]',
        "benchmark": '[{"attempt_1": %s}]',
        "variation": '{"a": [{"train": %s}]}',
        "line": '{"id": %s, "train": [], "test": []}',
        "examples": '{"examples": [%s]}',
    }
    for place, text in places.items():
        for name, value in unusual_values():
            yield f"{name} as {place}", text.replace("%s", value).encode("utf-8", "surrogatepass")
    for value in ('"a"', "3", "[[1]]", "{}"):
        yield f"{value} twice", ('{"a": %s, "a": %s}' % (value, value)).encode()  # noqa: UP031 - braces are JSON's
    good = json.dumps({"a": TASK})
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"):
        yield f"in {encoding}", good.replace('"a"', '"\u00e4"').encode(encoding)
    yield from {"empty": b"", "blank": b" \n", "a NUL": b"\0", "two values": b"{} {}", "a comma": b'{"a": 1,}'}.items()
    yield "long keys", ('{"%s": 1}' % ("x" * 10**6)).encode()  # noqa: UP031
    yield "long keys with a line break", json.dumps({"x" * 10**6 + "\n": TASK}).encode()


def zipped(content: bytes, kind: int, name: str = "a.json") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def patched(data: bytes, **fields: int) -> bytes:
    """A zip of one member with other numbers in both of its headers."""
    places = {"flags": (6, 8, 2), "method": (8, 10, 2), "crc": (14, 16, 4), "packed": (18, 20, 4), "size": (22, 24, 4)}
    out, central = bytearray(data), data.index(b"PK\1\2")
    for field, value in fields.items():
        local, other, size = places[field]
        for place in (local, central + other):
            out[place : place + size] = value.to_bytes(size, "little")
    return bytes(out)


def zips(n: int) -> Iterator[tuple[str, bytes]]:
    rng, content = np.random.default_rng(0), json.dumps([PAIR] * 40).encode()
    for name, kind in KINDS.items():
        whole = zipped(content, kind)
        for _ in range(n):
            place, data = int(rng.integers(len(whole))), bytearray(whole)
            data[place] ^= int(rng.integers(1, 256))
            yield f"{name}: byte {place}", bytes(data)
        for cut in rng.integers(0, len(whole), n // 4).tolist():
            yield f"{name}: cut at {cut}", whole[:cut]
        for field, values in {
            "flags": (1, 0x41, 0x800, 0xFFFF),
            "method": (1, 9, 12, 14, 97, 99),
            "crc": (0, 1),
            "packed": (0, 1, 2**31, 2**32 - 2),
            "size": (0, 1, 10**6, 2**28, 2**33 % 2**32, 2**32 - 2),
        }.items():
            for value in values:
                yield f"{name}: {field} {value}", patched(whole, **{field: value})
    yield (
        "a name that is no UTF-8",
        patched(zipped(content, 0, "\u00e4.json"), flags=0x800).replace(b"\xc3\xa4", b"\xff\xfe"),
    )
    yield "a name in another encoding", zipped(content, 0, "\u00e4.json").replace(b"\xc3\xa4", b"\xff\xfe")
    yield "a long name", zipped(content, 0, "x" * 60_000 + ".json")
    yield "a folder", zipped(b"", 0, "a.json/")
    yield "nothing", zipped(b"", 8)
    zeros = b"[" + b"0," * (5 * 2**20) + b"0]"
    yield "much", zipped(zeros, 8)
    lying = {
        8: zlib.compress(zeros, wbits=-15),
        12: bz2.compress(zeros),
        14: b"\x09\x04\x05\x00"
        + lzma.compress(zeros, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "preset": 0}])[:],
    }
    for method, packed in lying.items():
        small = zipped(packed, 0)
        yield f"much, declared as little, {method}", patched(small, method=method, size=2000)


def fault(read, path, name: str) -> str | None:
    """Return what is wrong with how a damaged file is read, ``None`` if nothing is."""
    began = time.monotonic()
    try:
        read(path)
    except DataError as error:
        if not str(error).startswith(f"{path}") or "\n" in str(error) or len(str(error)) > 600:
            return f"{name}: says {error!s:.200}"
    except Exception as error:
        return f"{name}: raises {type(error).__name__}: {error!s:.80}"
    return None if time.monotonic() - began < 5 else f"{name}: takes {time.monotonic() - began:.0f} s"


def readers(suffix: str):
    yield "tasks", read_all_tasks
    if suffix != ".zip":
        yield "candidates", lambda path: read_candidates([path], TASKS)
        yield "a submission", lambda path: read_submission(path, TASKS)


def faults(folder, n: int) -> tuple[int, list[str]]:
    """Return how many reads of damaged files were tried, and what is wrong with them."""
    tried, wrong = 0, []
    for suffix, files in ((".json", texts()), (".jsonl", texts()), (".zip", zips(n))):
        path = folder / f"a{suffix}"
        for name, data in files:
            path.write_bytes(data)
            for reader, read in readers(suffix):
                if suffix == ".jsonl" and reader != "tasks":
                    continue
                tried += 1
                with warnings.catch_warnings(action="ignore"):
                    found = fault(read, path, f"{suffix}, {name}, as {reader}")
                wrong += [found] if found else []
    return tried, wrong


@pytest.mark.slow
def test_every_damaged_file_is_read_or_refused_in_one_short_line(tmp_path):
    tried, wrong = faults(tmp_path, 20)
    assert tried > 1500 and wrong == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_zips_of_every_compression_are_read(tmp_path, kind):
    (tmp_path / "z.zip").write_bytes(zipped(json.dumps([PAIR] * 5000).encode(), kind))
    assert len(read_all_tasks(tmp_path / "z.zip")["a"].demonstrations) == 5000


def test_members_that_declare_too_much_are_refused_before_they_are_read(tmp_path):
    for size, packed, message in (
        (2**32 - 2, 2**31, "at most 256 MiB are read"),
        (2**27, 100, "made of 100, which is no"),
    ):
        path = tmp_path / "z.zip"
        path.write_bytes(patched(zipped(b"[]", 8), size=size, packed=packed))
        with pytest.raises(DataError, match=f"z.zip:a.json: declares {size:,} bytes.*{message}"):
            read_all_tasks(path)
