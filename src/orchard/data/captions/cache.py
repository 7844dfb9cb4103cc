"""What is kept of captions: indexes from one run to the next, and a packed file unpacked for this run."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchard.cache import cache_folder
from orchard.errors import OrchardError
from orchard.files import open_regular
from orchard.packed import DAMAGE, unpack

KEPT = 24  # indexes in a cache; the oldest go
ABANDONED = 86400  # seconds after which a half-made one is nobody's any more
_UNPACKED: dict[tuple[str, int, int], Path] = {}


def unpacked(path: Path) -> Path:
    """A .gz file unpacked, once in a process: to a temporary folder that goes when the process ends.

    Places in a packed file cannot be jumped to, and the unpacked text may be larger than memory, so it lies on disk.
    Raises OrchardError for a damaged file and a full disk.
    """
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _UNPACKED:
        folder = Path(tempfile.mkdtemp(prefix="orchard-"))
        atexit.register(_remove, folder, os.getpid())
        try:
            with open_regular(path) as packed, (folder / path.stem).open("wb") as plain:
                unpack(packed, stat.st_size, plain)
        except (*DAMAGE, ValueError) as error:
            raise OrchardError(f"{path} is damaged ({error}); fetch it again") from None
        except OSError as error:
            raise OrchardError(f"{path} cannot be unpacked to {folder}: {error.strerror or error}") from None
        _UNPACKED[key] = folder / path.stem
    return _UNPACKED[key]


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked off
        shutil.rmtree(folder, ignore_errors=True)


def place_of(path: Path, asked: str) -> Path:
    """Where the index of `path`, as it is now and read as `asked`, is kept."""
    stat = path.stat()
    key = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{asked}"
    return cache_folder("captions") / hashlib.sha256(key.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Index:
    """Arrays by name, and facts. Those of a kept index stay on disk and are read where they are asked."""

    arrays: Mapping[str, np.ndarray]
    facts: dict[str, Any]


def load(folder: Path) -> Index | None:
    """A kept index; none if it is not there, cannot be read or is not what was written."""
    try:
        kept = json.loads((folder / "facts.json").read_text())
        if kept["checksum"] != _checksum(kept["facts"], kept["arrays"]):
            return None
        arrays = {}
        for name, (kind, count, digest) in kept["arrays"].items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None
            arrays[name] = np.memmap(folder / name, kind, "r").view(np.ndarray) if count else np.empty(0, kind)
        return Index(arrays, kept["facts"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _checksum(facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([facts, arrays]).encode()).hexdigest()


class Making:
    """An index while it is made: its arrays grow in memory, and with a `folder` to be kept in, on disk.

    A cache that cannot be written, or whose disk is full, is done without. The arrays stay the same objects throughout.
    """

    def __init__(self, folder: Path | None, **kinds: str):
        """`kinds` are the arrays' names and their kinds, as `array` has them."""
        self.folder, self.arrays = folder, {name: array(kind) for name, kind in kinds.items()}
        self.spilled = dict.fromkeys(kinds, 0)
        self.digests = {name: hashlib.sha256() for name in kinds}
        self.scratch: Path | None = None
        with contextlib.suppress(OSError):
            if folder is not None:
                folder.parent.mkdir(parents=True, exist_ok=True)
                self.scratch = Path(tempfile.mkdtemp(dir=folder.parent, suffix=".part"))

    def __enter__(self) -> Making:
        return self

    def __exit__(self, *_: object) -> None:
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def spill(self) -> None:
        """Move what has grown from memory to disk."""
        if self.scratch is None:
            return
        try:
            for name, grown in self.arrays.items():
                with (self.scratch / name).open("ab") as file:
                    grown.tofile(file)
                self.digests[name].update(grown)
                self.spilled[name] += len(grown)
                del grown[:]
        except OSError:
            self._do_without()

    def done(self, facts: dict[str, Any]) -> Index:
        """The index, from now on kept."""
        self.spill()
        sizes = {
            name: [grown.typecode, self.spilled[name], self.digests[name].hexdigest()]
            for name, grown in self.arrays.items()
        }
        if self.scratch is not None and self.folder is not None:
            with contextlib.suppress(OSError):
                kept = {"facts": facts, "arrays": sizes, "checksum": _checksum(facts, sizes)}
                (self.scratch / "facts.json").write_text(json.dumps(kept))
                if index := load(self.scratch):
                    shutil.rmtree(self.folder, ignore_errors=True)
                    self.scratch.rename(self.folder)  # whole or not there; what is open stays open
                    self.scratch = None
                    _forget_old(self.folder.parent)
                    return index
        self._do_without()
        return Index({name: np.frombuffer(grown, grown.typecode) for name, grown in self.arrays.items()}, facts)

    def _do_without(self) -> None:
        """Take back into memory what lies on disk."""
        if self.scratch is None:
            return
        for name, grown in self.arrays.items():
            before = array(grown.typecode)
            if self.spilled[name]:
                with (self.scratch / name).open("rb") as file:
                    before.fromfile(file, self.spilled[name])
            grown[0:0] = before  # in place: who fills it keeps hold of it
            self.spilled[name] = 0
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch = None


def _forget_old(folder: Path) -> None:
    with contextlib.suppress(OSError):
        found = sorted(folder.iterdir(), key=lambda index: index.stat().st_mtime)
        half = [part for part in found if part.suffix == ".part" and time.time() - part.stat().st_mtime > ABANDONED]
        for old in [*half, *[index for index in found if index.suffix != ".part"][:-KEPT]]:
            shutil.rmtree(old, ignore_errors=True)
