"""One walker of files, for whatever looks for them in a folder. Read without torch or Pillow.

Left out everywhere: dot-files and dot-folders, and what systems and editors leave behind.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

IMAGES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
# What macOS, Windows and NAS boxes leave, in lower case.
JUNK = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "icon\r"})


@dataclass
class Walk:
    """The files below a folder with one of the wanted endings, by their paths within it, sorted; and the others."""

    files: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # files with other endings, or none
    folders: list[str] = field(default_factory=list)  # all folders, the empty ones too


def is_junk(name: str) -> bool:
    """Is this name (of a file or folder) one that no walk enters or lists?"""
    return name.startswith(".") or name.lower() in JUNK


def walk(folder: Path, endings: Collection[str]) -> Walk:
    """Walk a folder; `endings` are in lower case, with their dot. Links are followed, except to ancestors."""
    found = Walk()
    for name, is_folder in _walk(folder, "", (os.path.realpath(folder),)):
        if is_folder:
            found.folders.append(name)
        elif name.lower().endswith(tuple(endings)):
            found.files.append(name)
        else:
            found.others.append(name)
    return found


def _walk(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Names below `folder` in the order of a sorted listing; `above` are the real paths of it and its ancestors."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_junk(entry.name):
            continue
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if real not in above:
                yield prefix + entry.name, True
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, real))
        else:  # a broken link and a pipe too: who reads it says what is wrong with it
            yield prefix + entry.name, False


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, with its dot; empty if it has none."""
    file = name.rsplit("/", 1)[-1]
    dot = file.rfind(".")
    return file[dot:].lower() if dot > 0 else ""
