"""Pictures in files: in a folder or in a zip archive, looked at once and decoded when they are needed."""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import struct
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from lzma import LZMAError
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data.contracts import ImageSplit
from orchard.data.pictures import DEEP_MODES, FAULTS, GREY_MODES, fault, naming, open_picture, plain
from orchard.data.splits import stored
from orchard.data.walk import is_junk, walk
from orchard.errors import OrchardError, UsageError
from orchard.files import open_regular
from orchard.packed import MOST_PACKED

_EDGE = 64 * 1024  # bytes at each end of a large file that stand for its content
_MAX_UNPACKED = 256 * 2**20  # bytes that one member of an archive may unpack to
_SURELY_FINE = 2**22  # bytes up to which a member may be packed as tightly as it likes


class Files(ABC):
    """A place with files, each known by its path relative to that place, with forward slashes."""

    path: Path

    @abstractmethod
    def names(self) -> tuple[list[str], list[str]]:
        """All files and all folders, sorted; hidden ones are left out."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]: ...


class Folder(Files):
    def __init__(self, path: Path):
        self.path = path

    def names(self) -> tuple[list[str], list[str]]:
        found = walk(self.path, ("",))
        return sorted(found.files), sorted(found.folders)

    def open(self, name: str) -> IO[bytes]:
        try:
            return open_regular(self.path / name)
        except FileNotFoundError:  # macOS takes the accents of a name apart, who wrote the table did not
            forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} - {name}
            there = next((self.path / form for form in sorted(forms) if (self.path / form).exists()), None)
            if there is None:
                raise
            return open_regular(there)


class Archive(Files):
    """A zip archive, read where it lies: nothing is unpacked to disk."""

    def __init__(self, path: Path):
        self.path = path
        self._opened: tuple[int, ZipFile] | None = None

    def __reduce__(self) -> tuple[type[Archive], tuple[Path]]:
        return Archive, (self.path,)

    def _zip(self) -> ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():  # processes cannot share one place in a file
            try:
                self._opened = (os.getpid(), ZipFile(self.path))
            except (NotImplementedError, ValueError, OverflowError, struct.error) as error:  # of a version nobody has
                raise BadZipFile(str(error)) from None
        return self._opened[1]

    def names(self) -> tuple[list[str], list[str]]:
        members = [m for m in self._zip().namelist() if not any(is_junk(part) for part in m.rstrip("/").split("/"))]
        files = sorted(m for m in members if not m.endswith("/"))
        twice = next((a for a, b in pairwise(files) if a == b), None)
        if twice:
            raise OrchardError(f"{self.path}: '{twice}' is in the archive twice; pack it again without one of them")
        folders = {m.rstrip("/") for m in members if m.endswith("/")}
        folders.update("/".join(parts[:n]) for f in files for parts in [f.split("/")] for n in range(1, len(parts)))
        return files, sorted(folders)

    def open(self, name: str) -> IO[bytes]:
        archive = self._zip()
        about = archive.getinfo(name)
        if about.file_size > _MAX_UNPACKED:
            raise ValueError(f"it unpacks to more than {_MAX_UNPACKED // 2**20} MB")
        if about.file_size > _SURELY_FINE and about.file_size > MOST_PACKED * about.compress_size:
            raise ValueError(f"it unpacks to {about.file_size // max(about.compress_size, 1):,} times its size")
        try:
            return io.BytesIO(archive.read(name))
        except (RuntimeError, NotImplementedError, LZMAError) as error:  # encrypted, or packed in an unusual way
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Seen:
    """What one look at a picture file told: size in pixels when upright, colour, and the digest of its content."""

    width: int
    height: int
    grey: bool
    digest: bytes


def look(files: Files, name: str, thorough: bool) -> Seen | str:
    """Look at one file: what it is, or what is wrong with it.

    The digest is sha256 over the length and the content, of files over 128 KiB over the first and last 64 KiB. Only
    the header is decoded, unless the end of the file is missing or `thorough` asks for all of it.
    """
    try:
        with files.open(name) as file:
            head = file.read(2 * _EDGE)
            length = file.seek(0, io.SEEK_END)
            if not length:
                return "empty file"
            tail = head
            if length > 2 * _EDGE:
                file.seek(-_EDGE, io.SEEK_END)
                head, tail = head[:_EDGE], file.read()
            content = head if length <= 2 * _EDGE else head + tail
            digest = hashlib.sha256(length.to_bytes(8, "little") + content).digest()
            file.seek(0)
            with open_picture(file) as picture:
                ends = {"JPEG": b"\xff\xd9" in tail[-1024:], "PNG": b"IEND" in tail[-1024:]}
                if picture.mode in DEEP_MODES:
                    plain(picture, 1)  # their range shows in the pixels alone
                if thorough or not ends.get(picture.format or "", False):
                    picture.load()
                return Seen(*picture.size, picture.mode in GREY_MODES, digest)
    except FAULTS as error:
        return fault(error)
    except KeyError:
        return "there is no such file"


@contextmanager
def reading(source: str) -> Iterator[None]:
    """What goes wrong with the files of a source as an OrchardError in one line."""
    try:
        yield
    except BadZipFile as error:
        raise OrchardError(f"{source} is a damaged zip archive: {error}") from None
    except OSError as error:
        raise OrchardError(f"{source} cannot be read: {error.strerror or error}") from None


def files_at(source: str, what: str, expected: str, known: Sequence[str]) -> Files:
    """The folder or zip archive that a person named. UsageError for what is neither, with the names of sets that are
    near it, of those that are `known`."""
    path = Path(source).expanduser()
    if path.is_dir():
        return Folder(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        return Archive(path)
    if path.exists():
        raise UsageError(f"{source} is no set with {what}; {expected}")
    if not known:
        raise UsageError(f"there is no file or folder '{source}'; {expected}")
    near = difflib.get_close_matches(source.lower(), known, cutoff=0.6)
    names = f"the set known by name is {known[0]}" if len(known) == 1 else (
        f"the sets known by name are {' and '.join(known)}"
    )  # fmt: skip
    raise UsageError(f"there is no file or folder '{source}'; " + (f"did you mean {near[0]}?" if near else names))


def look_at_all(files: Files, names: Sequence[str], thorough: bool) -> list[Seen | str]:
    """`look` at many files, several at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda name: look(files, name, thorough), names))


def read_picture(files: Files, name: str, channels: int) -> Tensor:
    """A picture in grey or RGB, (C, H, W) uint8. OrchardError that names one that cannot be read."""
    with naming(str(files.path / name)), files.open(name) as file, open_picture(file) as picture:
        return as_tensor(np.array(plain(picture, channels)))


def as_tensor(pixels: np.ndarray) -> Tensor:
    """Pixels (H, W) or (H, W, C) uint8 as (C, H, W)."""
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


class FileSplit(ImageSplit):
    """Pictures in files."""

    def __init__(self, files: Files, names: Sequence[str], labels: np.ndarray, seen: Sequence[Seen]):
        self.files, self.names = files, list(names)
        self.labels = stored(labels)
        self.sizes = np.array([(s.height, s.width) for s in seen], np.int32).reshape(-1, 2)
        self.digests = [s.digest for s in seen]
        self.grey = all(s.grey for s in seen)
        self.small = bool(len(seen)) and int(self.sizes.max()) <= 64

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        with naming(self.key(index)), self.files.open(self.names[index]) as file, open_picture(file) as picture:
            yield picture

    def image(self, index: int) -> Tensor:
        with self.open(index) as picture:
            return as_tensor(np.array(plain(picture, 1 if picture.mode in GREY_MODES else 3)))

    def key(self, index: int) -> str:
        return str(self.files.path / self.names[index])
