"""The index of a candidate pool: which rows belong to which pair, as text in a Parquet file's footer."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.task import PairKey
from lightning_arc.errors import DataError

INDEX = np.dtype([("name", "<u8"), ("start", "<i8"), ("rows", "<i4"), ("place", "<i4")])

_PAIR = re.compile(rb'\["((?:[^"\\]|\\.)*)", "([a-z]*)", (-?\d{1,10})\](?:, |\]$)')
"""A pair as it is written in the list of names, with the comma or bracket behind it."""


def encode_index(names: list[PairKey], counts: list[int]) -> str:
    """Return an index as text: the pairs' names in the file's order, and a table sorted by `pair_number`.

    Args:
        names: the pairs in the order of their rows.
        counts: how many rows each has.

    Raises:
        ValueError: if a pair is there twice.
        DataError: if the names are longer than `decode_names` reads.
    """
    table = np.zeros(len(names), INDEX)
    table["name"] = np.array([pair_number(key) for key in names], np.uint64)
    table["rows"] = counts
    table["start"] = np.concatenate([[0], np.cumsum(counts)])[:-1] if counts else []
    table["place"] = np.arange(len(names))
    table.sort(order="name")
    if len(np.unique(table["name"])) < len(names):
        raise ValueError("a pair was written twice")
    texts = {"names": json.dumps([list(key) for key in names]).encode(), "index": table.tobytes()}
    if len(texts["names"]) > _names_limit(len(names)):
        raise DataError("the ids of the tasks are too long for a pool")
    return json.dumps({name: base64.b85encode(zlib.compress(data)).decode() for name, data in texts.items()})


def decode_index(text: str, starts: NDArray[np.int64]) -> NDArray[np.void]:
    """Return the table of an index, sorted by `pair_number`, after checking that it fits the file.

    Args:
        text: the table, as `encode_index` wrote it.
        starts: ``(row groups + 1,)`` first row of every row group, and the number of rows behind them.

    Raises:
        DataError: says what is wrong with it.
    """
    # A third of every entry is a hash, which cannot be compressed: data that expands more than this is no index.
    data = _expand(text, lambda compressed: 16 * compressed + 4096)
    if len(data) % INDEX.itemsize:
        raise DataError("its index ends within an entry")
    index = np.frombuffer(data, INDEX)
    if (index["name"][1:] <= index["name"][:-1]).any():
        raise DataError("its index is not sorted, or has a pair twice")
    order = np.argsort(index["place"], kind="stable")
    rows = index["rows"][order].astype(np.int64)
    ends = np.cumsum(rows)
    if (index["place"][order] != np.arange(len(index))).any() or (rows < 0).any():
        raise DataError("its index counts pairs or rows wrongly")
    if (index["start"][order] != ends - rows).any() or int(starts[-1]) != (int(ends[-1]) if len(ends) else 0):
        raise DataError("its index does not fit its rows")
    some = rows > 0
    groups = (np.searchsorted(starts, at, side="right") for at in ((ends - rows)[some], ends[some] - 1))
    if (next(groups) != next(groups)).any():
        raise DataError("its index has a pair in two row groups")
    return index


def decode_names(text: str, index: NDArray[np.void]) -> list[PairKey]:
    """Return the pairs of an index in the file's order.

    Raises:
        DataError: if they are not those of the index.
    """
    data = _expand(text, lambda _: _names_limit(len(index)))
    names: list[PairKey] = []
    place = 1
    while len(names) < len(index) and (found := _PAIR.match(data, place)):
        try:
            task_id = json.loads(b'"' + found[1] + b'"')
        except ValueError as error:
            raise DataError("its index has a name that is no text") from error
        names.append(PairKey(task_id, found[2].decode(), int(found[3])))
        place = found.end()
    in_order = index["name"][np.argsort(index["place"])]
    if not (data[:1] == b"[" and len(names) == len(index) and place == max(len(data), 1) - (not names)):
        raise DataError("its index has other names than pairs")
    if (np.array([pair_number(key) for key in names], np.uint64) != in_order).any():
        raise DataError("its index has other names than pairs")
    return names


def pair_number(key: PairKey) -> int:
    """Return a number that stands for a pair in the index."""
    text = "\0".join(map(str, key)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _names_limit(n_pairs: int) -> int:
    return 64 * 2**20 + 1024 * n_pairs


def _expand(text: object, limit: Callable[[int], int]) -> bytes:
    """Return the bytes that a text encodes, at most as many as ``limit`` allows for its compressed length."""
    if not isinstance(text, str):
        raise DataError("it has no index")
    try:
        compressed = base64.b85decode(text)
        expander = zlib.decompressobj()
        data = expander.decompress(compressed, limit(len(compressed)) + 1)
    except (ValueError, zlib.error) as error:
        raise DataError(f"its index is damaged: {error}") from error
    if len(data) > limit(len(compressed)):
        raise DataError("its index is larger than its pairs can make it")
    if not expander.eof:
        raise DataError("its index is cut off")
    return data
