"""What is kept beside a picture TSV: its index from one run to the next, and a packed file unpacked for this run."""

from __future__ import annotations

import atexit
import contextlib
import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from orchard.errors import OrchardError

KEPT = 16  # indexes in the cache; the oldest go
_CHUNK = 2**20
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
            with gzip.open(path) as packed, (folder / path.stem).open("wb") as plain:
                shutil.copyfileobj(packed, plain, _CHUNK)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OrchardError(f"{path} is damaged ({error}); fetch it again") from None
        except OSError as error:
            raise OrchardError(f"{path} cannot be unpacked to {folder}: {error.strerror or error}") from None
        _UNPACKED[key] = folder / path.stem
    return _UNPACKED[key]


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked off
        shutil.rmtree(folder, ignore_errors=True)


def cache_file(path: Path, asked: str) -> Path:
    """Where the index of `path`, as it is now and read as `asked`, is kept: in $ORCHARD_CACHE or the user's cache."""
    stat = path.stat()
    key = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{asked}"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("ORCHARD_CACHE") or Path(home) / "orchard") / "captions"
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def load(file: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an index; none if it is not there or cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zlib.error, BadZipFile):
        return None


def store(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep an index. A cache that cannot be written is done without."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as scratch:
            try:
                np.savez(scratch, **arrays)  # type: ignore[arg-type]
                scratch.close()
                Path(scratch.name).replace(file)
            finally:
                Path(scratch.name).unlink(missing_ok=True)
        for old in sorted(file.parent.glob("*.npz"), key=lambda f: f.stat().st_mtime)[:-KEPT]:
            old.unlink()
