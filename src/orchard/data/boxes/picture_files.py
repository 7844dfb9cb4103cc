"""The pictures that annotations name, found among files: below the annotations, or in a folder beside them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchard.data.coco import base, split_of
from orchard.data.files import Files, Folder
from orchard.data.walk import IMAGES, ending_of, is_junk

USUAL = ("images", "jpegimages")  # folders of pictures, in lower case; of equal names those in them are meant


class PictureFiles:
    """Picture files by their names."""

    def __init__(self, files: Files):
        self.files = files
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in files.names()[0]:
            if ending_of(path) in IMAGES:
                self._by_name[base(path)].append(path)

    def find(self, name: str, split: str) -> list[str]:
        """The paths that a table of this split can mean by a name, at best one.

        A path that ends as the name does is before others of the same last part; of several, those in a folder that is
        named for the split, then the one that is the name itself, then those in a usual folder of pictures.
        """
        paths = self._by_name.get(base(name), [])
        exact = [path for path in paths if f"/{path}".endswith(f"/{name}")] or paths
        of_split = [path for path in exact if split and split in map(split_of, path.split("/")[:-1])]
        if of_split:
            return of_split if len(of_split) == 1 else usual(of_split)
        return [name] if name in exact else usual(exact)


class Neighbours(Folder):
    """Pictures in a folder, in the folders in it, and in the folders of one of these that is called images; no deeper,
    as nobody said that all of it belongs together."""

    def names(self) -> tuple[list[str], list[str]]:
        folders = [""]
        for folder in self._list("", folders=True):
            folders.append(folder)
            if folder.lower() in USUAL:
                folders += [f"{folder}/{inner}" for inner in self._list(folder, folders=True)]
        files = [f"{at}/{name}" if at else name for at in folders for name in self._list(at, folders=False)]
        return sorted(files), sorted(folders[1:])

    def _list(self, folder: str, folders: bool) -> Iterator[str]:
        """The pictures, or the folders, in one folder; in one that may not be read there are none."""
        try:
            entries = list(os.scandir(self.path / folder))
        except OSError:
            return
        for entry in entries:
            if not is_junk(entry.name) and (entry.is_dir() if folders else ending_of(entry.name) in IMAGES):
                yield entry.name


def folders_of(place: Path, paths: Sequence[str], most: int = 3) -> str:
    """The folders that files below a place are in, in words."""
    found = list(dict.fromkeys(str((place / path).parent) for path in paths))
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def usual(paths: list[str]) -> list[str]:
    """Of several paths, those in a folder that pictures usually are in, if there are such."""
    return [path for path in paths if any(part.lower() in USUAL for part in path.split("/")[:-1])] or paths
