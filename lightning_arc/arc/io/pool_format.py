"""What a Parquet file must be to be a candidate pool: columns, types, and bounds that are checked before reading."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_arc.arc.io.files import check_regular
from lightning_arc.errors import DataError, first_line

FORMAT = b"lightning-arc-pool-2"
SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("split", pa.string()),
        ("index", pa.int32()),
        ("height", pa.int8()),
        ("width", pa.int8()),
        ("cells", pa.binary()),
        ("votes", pa.int32()),
        ("sources", pa.list_(pa.string())),
        ("log_likelihood", pa.float64()),
        ("correct", pa.bool_()),
    ],
    metadata={b"format": FORMAT},
)
TEXTS = ("task_id", "split", "sources")
"""Text columns with few distinct values, which are read dictionary-encoded."""

MAX_GROUP_ROWS = 2**18
"""Most rows of a row group, and so most candidates of a pair; as many of the largest grids take 236 MB."""

MAX_GROUP_BYTES = 2**28
"""Most bytes of a row group, and of a text column that is decoded from its dictionary."""

DAMAGED = (OSError, pa.ArrowException, ValueError, KeyError, IndexError, OverflowError, MemoryError, EOFError)
"""What pyarrow raises where a file is damaged."""


def open_parquet(path: Path, careful: bool = False) -> tuple[pq.ParquetFile, dict[str, Any], NDArray[np.int64]]:
    """Open a pool and check its footer.

    Args:
        path: the file.
        careful: whether cells are read dictionary-encoded too (equal grids once), which is slower.

    Returns:
        The file; the text of its index, ``{"names": …, "index": …}``; and ``(row groups + 1,)`` first row of every row
        group, and the number of rows behind them.

    Raises:
        DataError: says what is wrong, without the file's name.
    """
    try:
        check_regular(path)
        metadata = pq.read_metadata(path, memory_map=True)
        pairs = _pairs(metadata)
        _check_columns(metadata.schema.to_arrow_schema())
        starts = _row_starts(metadata)
        # Dictionary-encoded columns take no more memory than the file declares.
        paths = (metadata.schema.column(i).path for i in range(len(SCHEMA)))
        texts = [path for path in paths if path.split(".")[0] in (*TEXTS, *(["cells"] if careful else []))]
        options = {"memory_map": True, "read_dictionary": texts, "page_checksum_verification": True}
        return pq.ParquetFile(path, metadata=metadata, **options), pairs, starts
    except DataError:
        raise
    except FileNotFoundError as error:
        make = "make pool, or python cli.py pool, makes one"
        raise DataError(f"there is no such pool; {make}") from error
    except DAMAGED as error:
        raise DataError(f"cannot be read as a Parquet pool: {first_line(error)}") from error


def is_unusual(declared: int, cells: NDArray[np.int64]) -> bool:
    """Whether a row group's declared size differs from that of its grids plus a little per row.

    Then its texts are long, or its cells are dictionary-encoded and may expand to far more bytes than the file has.

    Args:
        declared: bytes of the row group, uncompressed.
        cells: ``(rows,)`` cells of every grid.
    """
    expected = int(cells.sum()) + 4 * len(cells)
    return not expected <= declared <= expected + 256 * len(cells) + 2**16


def written_out(table: pa.Table) -> pa.Table:
    """Return a table that is read faster: text columns of at most `MAX_GROUP_BYTES` are not dictionary-encoded."""
    for name in TEXTS:
        if name not in table.column_names:
            continue
        column = table[name].combine_chunks()
        texts = column.flatten() if pa.types.is_list(column.type) else column
        longest = pc.max(pc.binary_length(texts.dictionary)).as_py() or 0
        if longest * len(texts) <= MAX_GROUP_BYTES:
            table = table.set_column(table.column_names.index(name), name, column.cast(SCHEMA.field(name).type))
    return table


def _pairs(metadata: pq.FileMetaData) -> dict[str, Any]:
    """Return what a footer holds of the index of pairs."""
    values = metadata.metadata or {}
    if values.get(b"format") != FORMAT:
        raise DataError(f"not a candidate pool (its format is not {FORMAT.decode()})")
    try:
        pairs = json.loads(values.get(b"pairs", b""))
    except (ValueError, RecursionError) as error:
        raise DataError("cannot be read as a Parquet pool: it has no index") from error
    if not isinstance(pairs, dict) or not {"names", "index"} <= pairs.keys():
        raise DataError("cannot be read as a Parquet pool: it has no index")
    return pairs


def _check_columns(schema: pa.Schema) -> None:
    if schema.names != SCHEMA.names:
        raise DataError(f"not a candidate pool (expected the columns {', '.join(SCHEMA.names)})")
    for field, expected in zip(schema, SCHEMA, strict=True):
        if _plain(field.type) != expected.type:
            raise DataError(f"not a candidate pool (column {field.name} is {field.type}, expected {expected.type})")


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return a type without the names of its list elements."""
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


def _row_starts(metadata: pq.FileMetaData) -> NDArray[np.int64]:
    # `RowGroupMetaData.column` is avoided: on damaged statistics it kills the process.
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    sizes = [group.num_rows for group in groups]
    if any(group.total_byte_size > MAX_GROUP_BYTES for group in groups):
        raise DataError("cannot be read as a Parquet pool: a row group declares too many bytes")
    if sizes and not 0 <= min(sizes) <= max(sizes) <= MAX_GROUP_ROWS:
        raise DataError(f"cannot be read as a Parquet pool: a row group declares {max(sizes):,} rows")
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
