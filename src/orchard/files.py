"""Files of ours: written beside and renamed, read with their form checked. Read without torch.

Every output goes through `atomic` (a file) or `atomic_folder`, or is gone on with by the one process that holds its
lock (`locked`); every JSON file that may come from somebody else goes through `read_json` or `read_as`. A link is never
followed to write through it, and what lies beside is only taken for ours where nobody else can have made it.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import itertools
import json
import math
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar

from orchard.errors import OrchardError
from orchard.terminal import cell, plain_json

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")
LARGEST_JSON = 64 * 2**20  # bytes of a JSON file that is read
DEEPEST_JSON = 64  # lists and objects inside each other in it
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})  # of a disk, not of our code


def open_regular(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file for reading. OSError for what is none, such as a pipe, which would be waited for for ever."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(number, "rb", buffering)


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that a kill at any moment leaves either the old one or the new one, whole.

    Two processes may write the same file: it is the whole of what the later one wrote. A pipe or device is written to
    as it is. The file's mode is what the umask says. OSError where the disk does not take it: nothing was changed.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        with path.open("wb") as through:
            yield through
        return
    file, beside = _open_beside(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)  # before it is closed: until then its lock says that it is being written
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _open_beside(path: Path) -> tuple[IO[bytes], Path]:
    """A new file beside `path`, locked; what a killed process left under one of its names is removed."""
    for number in itertools.count():
        beside = path.with_name(f".{path.name}.partial{number or ''}")
        _remove_abandoned(beside)
        try:
            file = beside.open("xb")
        except FileExistsError:  # somebody's file or link, or that of another process that writes the same
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_still(beside, file):  # and not taken for abandoned before it was locked
            return file, beside
        file.close()
    raise AssertionError("numbers have no end")


def _remove_abandoned(beside: Path) -> None:
    """Remove a file that nobody writes any more: a plain one of this user, with one name and without a lock."""
    with contextlib.suppress(OSError):
        found = os.lstat(beside)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid():
            with beside.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(beside, file):
                    beside.unlink()


def _is_still(path: Path, file: IO[bytes]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(path), os.fstat(file.fileno()))
    return False


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when all of it is there; after a kill or an error there is none.

    `path` must not exist when the work is done. Raises OSError where it cannot be written, OrchardError where another
    process is making it.
    """
    beside = path.with_name(f".{path.name}.partial")
    if beside.is_symlink():
        raise OrchardError(f"{beside} is a link, which is not followed for writing; remove it")
    beside.mkdir(parents=True, exist_ok=True)
    lock = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in beside.iterdir():  # of a process that was killed
            remove(left)
        yield beside
        beside.rename(path)
    except BlockingIOError:
        raise OrchardError(f"another process is making {path}; wait for it, or name another place") from None
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def remove(path: Path) -> None:
    """Remove a file, a folder with what it holds, or a link (not what it points to)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[IO[bytes]]:
    """A file to read and go on with (made if it is not there), which no other process writes meanwhile.

    OrchardError where another process has it, which says `busy`, or where it is a link.
    """
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OrchardError(f"{path} is a link, which is not followed for writing; name the file itself") from None
        raise
    with os.fdopen(number, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OrchardError(busy) from None
        yield file


def json_text(value: Any, indent: int | None = None) -> str:
    """Valid JSON, for a file or a terminal: what is not a finite number is null, and what nobody sees is escaped."""
    return plain_json(json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file atomically."""
    with atomic(path) as file:
        file.write((json_text(value, indent=2) + "\n").encode())


def write_table(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file atomically, row by row, with cells that no spreadsheet runs. OrchardError for a bad disk."""
    try:
        with atomic(path) as file:
            text = io.TextIOWrapper(file, newline="", encoding="utf-8", write_through=True)
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([cell(one) for one in row] for row in rows)
            text.detach()
    except OSError as error:
        raise disk_error(error, path, "nothing of it was changed") from None


def disk_error(error: OSError, path: Path, kept: str) -> OrchardError:
    """The line for a disk that does not take what we write."""
    return OrchardError(f"cannot write {path}: {error.strerror or error}; {kept}")


def read_json(path: Path) -> Any:
    """The value in a JSON file; OrchardError names a file that is missing, damaged, too large or nested too deeply."""
    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > LARGEST_JSON:
                raise OrchardError(f"{path} has {size:,} bytes; expected a JSON file of at most {LARGEST_JSON:,}")
            value = json.loads(file.read().decode("utf-8"))
        if _nests_deeper(value, DEEPEST_JSON):
            raise ValueError(f"its lists and objects nest more than {DEEPEST_JSON} deep")
        return value
    except FileNotFoundError:
        raise OrchardError(f"{path} is missing") from None
    except OSError as error:
        raise OrchardError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise OrchardError(f"{path} is damaged: {str(error).splitlines()[0][:160]}") from None


def _nests_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, (dict, list)) for one in level)


def read_as(path: Path, kind: type[M]) -> M:
    """A JSON file as a pydantic model; OrchardError names the file, the key at fault and what was expected."""
    from pydantic import ValidationError

    value = read_json(path)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise OrchardError(f"{path}: '{key}': {first['msg'][0].lower() + first['msg'][1:]}") from None
