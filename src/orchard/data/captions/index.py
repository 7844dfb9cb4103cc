"""A picture TSV of any length by row: one pass finds where each row begins, and a row is read when it is asked for.

The index takes twenty bytes for a row (its place in the file, its length, and what its picture is known by). That of a
large file lies on disk, as rows and pictures do, so that memory stays flat however many rows there are.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from orchard.data.captions import cache
from orchard.data.captions.contracts import CaptionSettings, Progress
from orchard.data.captions.fields import picture_bytes, picture_fault, split_fields
from orchard.data.captions.layout import NAMES, Layout, find_layout
from orchard.data.collect import GO_ON
from orchard.data.contracts import Problem
from orchard.data.pictures import FAULTS, fault, open_picture
from orchard.data.splits import AllBut
from orchard.errors import OrchardError
from orchard.files import open_regular

MAX_ROW = 256 * 2**20  # bytes
MAX_LISTED = 1000  # bad rows of a file that are listed one by one
_CACHED = 64 * 2**20  # bytes of a file from which on its index is kept for the next run
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would change line ends
_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # how UTF-16 begins
_TOLD = 2**24  # bytes between two calls of progress


@dataclass(frozen=True, eq=False)
class TsvFile:
    """One file and its index."""

    path: Path  # as the person knows it
    plain: Path  # where its text lies: the same, or unpacked
    layout: Layout
    offsets: np.ndarray  # (N,) int64, bytes
    lengths: np.ndarray  # (N,) uint32, bytes with the line's end
    passed: np.ndarray  # int64, sorted: numbers of the lines that are no records
    marks: np.ndarray  # (N,) int64, the beginning of sha256 over the picture's field
    digest: bytes  # sha256 over the whole file
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.offsets)

    def fields(self, row: int) -> list[bytes]:
        """The fields of a row. Raises OrchardError if the file is not what it was when it was indexed."""
        # Opened anew each time: threads and forked processes would share one place in an open file.
        try:
            file = os.open(self.plain, _READ)
            try:
                os.lseek(file, int(self.offsets[row]), os.SEEK_SET)
                line = os.read(file, int(self.lengths[row]))
            finally:
                os.close(file)
        except OSError as error:
            raise OrchardError(f"{self.key(row)}: {error.strerror or error}") from None
        fields = split_fields(line.rstrip(b"\r\n"), self.layout.count)
        if len(fields) != self.layout.count:
            raise OrchardError(f"{self.key(row)}: not a row any more; the file has changed since it was opened")
        return fields

    def key(self, row: int) -> str:
        lines = AllBut(len(self) + len(self.passed), self.passed - 1)
        return f"{self.path}, line {lines[row] + 1}"


def index_file(path: Path, settings: CaptionSettings, progress: Progress | None = None) -> TsvFile:
    """Index a TSV, packed by gzip or not.

    Every row is looked at: its number of fields, its encoding, its text, and whether its picture is base64 that begins
    like a picture; with `bad_records="skip"` every picture is decoded too. Raises OrchardError for the first bad row,
    with its line, unless bad rows are skipped; then it is raised only if no row is left.
    """
    plain = cache.unpacked(path) if path.suffix.lower() == ".gz" else path
    asked = f"3 {settings.columns.model_dump_json(include={*NAMES})} {settings.header} {settings.bad_records}"
    kept = cache.place_of(path, asked) if plain is path and path.stat().st_size >= _CACHED else None
    index = (cache.load(kept) if kept else None) or _scan(path, plain, settings, progress, kept)
    arrays, facts = index.arrays, index.facts
    problems = tuple(Problem(*problem) for problem in facts["problems"])
    if not len(arrays["offsets"]):
        why = f"; {problems[0].key}: {problems[0].what}" if problems else ""
        raise OrchardError(f"{path} has no row that can be read{why}")
    return TsvFile(
        path, plain, Layout(**facts["layout"]), arrays["offsets"], arrays["lengths"], arrays["passed"], arrays["marks"],
        bytes.fromhex(facts["digest"]), problems,
    )  # fmt: skip


def _scan(
    path: Path, plain: Path, settings: CaptionSettings, progress: Progress | None, kept: Path | None
) -> cache.Index:
    skip = settings.bad_records == "skip"
    problems: list[Problem] = []
    bad = 0
    digest = hashlib.sha256()
    total = plain.stat().st_size
    with (
        open_regular(plain, 2**20) as file,
        cache.Making(kept, offsets="q", lengths="I", passed="q", marks="q") as making,
    ):
        offset = _begin(path, file)
        layout = find_layout(path, [line.rstrip(b"\r\n") for line in islice(_lines(file), 20)], settings)
        file.seek(offset)
        told = offset
        offsets, lengths, passed, marks = making.arrays.values()
        for number, line in enumerate(_lines(file), 1):
            digest.update(line)
            bare = line.rstrip(b"\r\n")
            if not bare or (number == 1 and layout.header):
                passed.append(number)
            elif what := _row_fault(bare, layout, thorough=skip):
                if not skip:
                    names = "; if this line names the columns, say --set data.header=yes" if number == 1 else ""
                    raise OrchardError(f"{path}, line {number}: {what}{names}\nmend or remove what is bad, {GO_ON}")
                passed.append(number)
                bad += 1
                if bad <= MAX_LISTED:
                    problems.append(Problem(f"{path}, line {number}", f"{what}; left out"))
            else:
                offsets.append(offset)
                lengths.append(len(line))
                picture = split_fields(bare, layout.count)[layout.picture]
                marks.append(int.from_bytes(hashlib.sha256(picture).digest()[:8], "little", signed=True))
            offset += len(line)
            if offset - told >= _TOLD:
                told = offset
                making.spill()
                if progress:
                    progress(offset, total)
        if progress:
            progress(offset, total)
        if bad > MAX_LISTED:
            problems.append(Problem(str(path), f"{bad - MAX_LISTED} more rows are bad; left out"))
        listed = [(problem.key, problem.what) for problem in problems]
        return making.done({"layout": vars(layout), "digest": digest.hexdigest(), "problems": listed})


def _begin(path: Path, file: BinaryIO) -> int:
    """Where the text begins: after the byte order mark that some editors write."""
    start = file.read(3)
    if start[:2] in _WIDE:
        raise OrchardError(f"{path} is UTF-16; save it as UTF-8")
    begin = len(_BOM) if start == _BOM else 0
    file.seek(begin)
    return begin


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file with their ends; one longer than `MAX_ROW` comes in pieces, which are no rows."""
    return iter(partial(file.readline, MAX_ROW), b"")


def _row_fault(line: bytes, layout: Layout, thorough: bool) -> str:
    """What is wrong with a row; empty if nothing is."""
    fields = split_fields(line, layout.count)
    if len(fields) != layout.count:
        quote = "; a text with tabs in it stands in double quotes" if len(fields) > layout.count else ""
        return f"{len(fields)} fields, where there should be {layout.count}{quote}"
    try:
        text = fields[layout.text].decode()
    except UnicodeDecodeError:
        return "the text is not UTF-8"
    if not text.strip():
        return "the text is empty"
    picture = fields[layout.picture]
    what = picture_fault(picture)
    if what or not thorough:
        return what
    try:
        with open_picture(io.BytesIO(picture_bytes(picture))) as opened:
            opened.load()
    except FAULTS as error:
        return fault(error)
    return ""
