"""Files of ours: written beside and renamed, read with their form checked. Read without torch.

Every output goes through `atomic`, every JSON file that may come from somebody else through `read_json` or `read_as`.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar

from orchard.errors import OrchardError

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")
LARGEST_JSON = 64 * 2**20  # bytes of a JSON file that is read


def open_regular(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file for reading. OSError for what is none, such as a pipe, which would be waited for for ever."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(number, "rb", buffering)


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that a kill at any moment leaves either the old one or the new one, whole."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file atomically."""
    with atomic(path) as file:
        # The names of some files are no UTF-8: their strange bytes become escapes, which read back as they were.
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))


def disk_error(error: OSError, path: Path, kept: str) -> OrchardError:
    """The line for a disk that does not take what we write."""
    return OrchardError(f"cannot write {path}: {error.strerror or error}; {kept}")


def read_json(path: Path) -> Any:
    """The value in a JSON file; OrchardError names a file that is missing, damaged or too large."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise OrchardError(
                f"{path} has {path.stat().st_size:,} bytes; expected a JSON file of at most {LARGEST_JSON:,}"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OrchardError(f"{path} is missing") from None
    except OSError as error:
        raise OrchardError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise OrchardError(f"{path} is damaged: {str(error).splitlines()[0][:160]}") from None


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
