"""Where a person's machine keeps what can be made again: indexes, codes of pictures, compiled models.

Compiled code from here runs in our process, so the folders are its owner's alone, and a compiled file is opened only as
it was written: `keep` notes its sha256 beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchard.errors import OrchardError

MAKING = "making-"  # how the folders begin in which something is made
_LOCK = ".lock"  # held as long as its maker lives
_SETTLED = 60  # seconds after which the maker of such a folder surely holds its lock


def cache_folder(kind: str) -> Path:
    """The folder for one kind of things: in $ORCHARD_CACHE, else in the user's cache. Made where it can be, 0700.

    Raises OrchardError for a folder that others could have written into: a link, another owner, open to a group or all;
    and where there is no home.
    """
    root = _root()
    for folder in (root, root / kind):
        _make_private(folder)
        fault = _fault_of(folder)
        if fault:
            raise OrchardError(
                f"the cache {folder} is not used: {fault}; remove it, or name one of your own in ORCHARD_CACHE"
            )
    return root / kind


def _root() -> Path:
    if named := os.environ.get("ORCHARD_CACHE"):
        return Path(named)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "orchard"
    try:
        return Path.home() / ".cache" / "orchard"
    except RuntimeError:  # a user without an entry and without $HOME, as in some containers
        raise OrchardError("there is no home for the cache; name a folder of your own in ORCHARD_CACHE") from None


def _make_private(folder: Path) -> None:
    for missing in reversed([path for path in (folder, *folder.parents) if not os.path.lexists(path)]):
        with contextlib.suppress(OSError):  # whoever writes there says what is wrong
            missing.mkdir(mode=0o700)


def _fault_of(path: Path) -> str:
    """Why others could have put something here; "" where nobody else could, or nothing is there."""
    try:
        about = path.lstat()
    except OSError:
        return ""
    if stat.S_ISLNK(about.st_mode):
        return "it is a link"
    if about.st_uid != os.getuid():
        return f"it belongs to user {about.st_uid}"
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(about.st_mode):04o})"
    return ""


def keep(made: Path, place: Path) -> None:
    """Move a finished file to its place, whole or not there, and note its sha256 beside it."""
    made.chmod(0o600)
    note = made.with_name(made.name + ".note")
    note.write_text(_sum(made))
    note.replace(_note(place))
    made.replace(place)


def is_kept(place: Path) -> bool:
    """Is the file there as `keep` left it? False for one that was cut, changed or put there by others."""
    try:
        ours = place.is_file() and not _fault_of(place) and not _fault_of(_note(place))
        return ours and _note(place).read_text() == _sum(place)
    except (OSError, ValueError):
        return False


def make_once(place: Path, make: Callable[[Path], None]) -> None:
    """Have `place` made by `make`, by one process at a time and only where it is not kept."""
    with place.with_name(place.name + _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_kept(place):
            with scratch(place.parent) as folder:
                make(folder / place.name)
                keep(folder / place.name, place)


def drop(place: Path) -> None:
    """Remove what `keep` left."""
    for path in (place, _note(place)):
        path.unlink(missing_ok=True)


def _note(place: Path) -> Path:
    return place.with_name(place.name + ".sha256")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder in `folder` to make something in, removed at the end, with those that killed processes left."""
    for left in folder.glob(f"{MAKING}*"):
        _remove_if_left(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=MAKING) as name, Path(name, _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if folder.is_symlink() or time.time() - folder.stat().st_mtime < _SETTLED:
            return
        with (folder / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its maker holds it, or is gone
            shutil.rmtree(folder, ignore_errors=True)
