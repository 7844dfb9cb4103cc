"""The lines of a text file of any length by their numbers: one pass finds where each begins.

The index takes sixteen bytes for a line. That of a large file lies on disk, as the lines do, so that memory stays flat.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchard.data.captions import cache
from orchard.errors import OrchardError
from orchard.files import open_regular

_CACHED = 64 * 2**20  # bytes of a file from which on its index is kept for the next run
_SPILL = 2**20  # lines between two writes of an index to disk
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would change line ends
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, eq=False)
class Lines:
    """One file, packed by gzip or not, and where its lines begin."""

    path: Path  # as the person knows it
    plain: Path  # where its text lies: the same, or unpacked
    offsets: np.ndarray  # (N + 1,) int64, bytes; the last is the end of the file
    blank: np.ndarray  # int64, sorted: numbers of the lines, from 0, in which nothing stands
    marks: np.ndarray  # (N,) int64, by which each line is known again: `mark_of` its text
    digest: str  # sha256 over the whole file

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> str:
        """Line `number`, from 0, without its end. Raises OrchardError if the file has changed or is not UTF-8."""
        begin, end = int(self.offsets[number]), int(self.offsets[number + 1])
        # Opened anew each time: threads and forked processes would share one position in an open file.
        try:
            file = os.open(self.plain, _READ)
            try:
                os.lseek(file, begin, os.SEEK_SET)
                data = os.read(file, end - begin)
            finally:
                os.close(file)
            return data.decode().rstrip("\r\n")
        except OSError as error:
            raise OrchardError(f"{self.key(number)}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise OrchardError(f"{self.key(number)} is not UTF-8; convert it, for example with iconv") from None

    def key(self, number: int) -> str:
        return f"{self.path}, line {number + 1}"


def mark_of(text: str) -> int:
    """What a text is, in eight bytes."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def index_lines(path: Path) -> Lines:
    """Index a file. Raises OrchardError for one that cannot be read, is empty, or is not UTF-8, with the line."""
    try:
        plain = cache.unpacked(path) if path.suffix.lower() == ".gz" else path
        kept = cache.place_of(path, "lines 2") if plain is path and path.stat().st_size >= _CACHED else None
        index = (cache.load(kept) if kept else None) or _scan(path, plain, kept)
    except OSError as error:
        raise OrchardError(f"{path} cannot be read: {error.strerror or error}") from None
    lines = Lines(path, plain, index.arrays["offsets"], index.arrays["blank"], index.arrays["marks"],
                  index.facts["digest"])  # fmt: skip
    if len(lines) == len(lines.blank):
        raise OrchardError(f"{path} is empty")
    return lines


def _scan(path: Path, plain: Path, kept: Path | None) -> cache.Index:
    digest = hashlib.sha256()
    with open_regular(plain, 2**20) as file, cache.Making(kept, offsets="q", blank="q", marks="q") as making:
        offset = len(_BOM) if file.read(3) == _BOM else 0
        file.seek(offset)
        making.arrays["offsets"].append(offset)
        for number, line in enumerate(file):
            digest.update(line)
            offset += len(line)
            try:
                text = line.decode().strip()
                if not text:
                    making.arrays["blank"].append(number)
                making.arrays["marks"].append(mark_of(text))
            except UnicodeDecodeError:
                raise OrchardError(
                    f"{path}, line {number + 1} is not UTF-8; convert it, for example with iconv"
                ) from None
            making.arrays["offsets"].append(offset)
            if not (number + 1) % _SPILL:
                making.spill()
        return making.done({"digest": digest.hexdigest()})
