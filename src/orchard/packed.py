"""Packed files, unpacked within bounds: a few kilobytes can hold more zeros than there is memory."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO

from orchard.errors import OrchardError
from orchard.files import open_regular

MOST_PACKED = 200  # times its size that data may unpack to; text comes to ten, rarely to fifty
_SURELY_FINE = 64 * 2**20  # bytes up to which it may be more
_CHUNK = 2**20
DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)


def most_unpacked(size: int) -> int:
    """Bytes that `size` bytes may unpack to."""
    return max(MOST_PACKED * size, _SURELY_FINE)


def unpack(packed: BinaryIO, size: int, into: BinaryIO) -> None:
    """Unpack what `packed` holds, `size` bytes. Raises ValueError where it is too much, one of `DAMAGE`, or OSError."""
    left = most_unpacked(size)
    with gzip.open(packed) as plain:
        while chunk := plain.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"it unpacks to more than {MOST_PACKED} times its size")
            into.write(chunk)


def unpacked_bytes(data: bytes) -> bytes:
    """Bytes of a .gz file, unpacked. Raises as `unpack` does."""
    into = io.BytesIO()
    unpack(io.BytesIO(data), len(data), into)
    return into.getvalue()


def read_bytes(path: Path) -> bytes:
    """What a file holds, unpacked where its name ends in .gz. Raises OrchardError that names it."""
    try:
        with open_regular(path) as file:
            data = file.read()
        return unpacked_bytes(data) if path.name.lower().endswith(".gz") else data
    except (*DAMAGE, ValueError) as error:
        raise OrchardError(f"{path} is damaged: {error}; fetch it again") from None
    except OSError as error:
        raise OrchardError(f"{path} cannot be read: {error.strerror or error}") from None


def read_head(path: Path, count: int) -> bytes:
    """The first `count` bytes of what a file holds, unpacked where its name ends in .gz. Raises OSError or one of
    `DAMAGE`."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else open_regular(path) as file:
        return file.read(count)
