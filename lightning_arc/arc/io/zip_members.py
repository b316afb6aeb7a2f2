"""Reading members of zip files whose sizes are bounded, whatever the file declares."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from lightning_arc.errors import DataError, shortened

MAX_MEMBER_BYTES = 256 * 2**20
"""Most bytes of one member; the largest of RE-ARC's have some megabytes."""

MAX_RATIO = 1000
"""Most bytes a member may have for each byte of its compressed form, where it is larger than `ALWAYS_FINE`."""

ALWAYS_FINE = 4 * 2**20

_CHUNK = 4096
"""Compressed bytes per piece. LZMA and bzip2 expand a piece whole, up to some thousand times its size."""

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # encryption, and compression that Python does not know
    ValueError,  # names that are no UTF-8, places before the file's beginning
    struct.error,
    OverflowError,
    MemoryError,
    KeyError,
    IndexError,
)
"""What `zipfile` raises where a file is damaged or not supported."""


def json_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Iterate over names and content of the ``.json`` files in a zip file, in the order of their names.

    Raises:
        DataError: names the file, and the member that cannot be read or is too large.
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(".json")]
            for info in sorted(infos, key=lambda info: info.filename):
                where = f"{path}:{shortened(info.filename)}"
                _check_size(info, where)
                content = _read(archive, info)
                yield info.filename, content
    except DataError:
        raise
    except DAMAGED as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError | IndexError) else str(error)
        raise DataError(f"{where}: not a readable zip file: {reason or 'it is damaged'}") from error


def _check_size(info: zipfile.ZipInfo, where: str) -> None:
    if info.file_size > MAX_MEMBER_BYTES:
        limit = MAX_MEMBER_BYTES // 2**20
        raise DataError(f"{where}: declares {info.file_size:,} bytes, at most {limit} MiB are read; split it")
    if info.file_size > max(ALWAYS_FINE, MAX_RATIO * info.compress_size):
        raise DataError(
            f"{where}: declares {info.file_size:,} bytes made of {info.compress_size:,}, which is no JSON file"
        )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read a member in pieces, so that at most its declared size plus one piece is ever expanded."""
    bounded = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # these expand no more than was declared
    with archive.open(info) as member:
        if bounded:
            return member.read()
        return b"".join(iter(lambda: member.read(_CHUNK), b""))
