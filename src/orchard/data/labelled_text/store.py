"""Texts of any number, one after the other in a file that goes when nothing reads it any more: memory stays flat."""

from __future__ import annotations

import os
import tempfile
import threading
from array import array


class TextStore:
    """Texts by their numbers. Written once, then read, by threads and by processes that are forked."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="orchard-texts-")  # noqa: SIM115 it is read as long as this lives
        self.ends = array("q", [0])
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ends) - 1

    def append(self, text: str) -> None:
        data = text.encode()
        self.file.write(data)
        self.ends.append(self.ends[-1] + len(data))

    def finish(self) -> None:
        """No text is added any more."""
        self.file.flush()

    def __getitem__(self, number: int) -> str:
        begin, end = self.ends[number], self.ends[number + 1]
        if hasattr(os, "pread"):  # at a place, so that no two readers share a position
            return os.pread(self.file.fileno(), end - begin, begin).decode()
        with self.lock:
            self.file.seek(begin)
            return self.file.read(end - begin).decode()
