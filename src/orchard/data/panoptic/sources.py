"""From what a person wrote after --data to the set of images with segments that it means."""

from __future__ import annotations

import zipfile
from pathlib import Path

from orchard.data.files import Archive, Folder, files_at, reading
from orchard.data.panoptic.coco import find_tables, read_tables
from orchard.data.panoptic.collect import collect
from orchard.data.panoptic.contracts import PanopticData
from orchard.data.panoptic.named import DIGIT_SCENES, open_digit_scenes
from orchard.data.settings import DataSettings
from orchard.errors import OrchardError

MOST_TABLES = 64  # JSON files that are looked into; a set has a few, more belong to something else
EXPECTED = (
    "expected COCO's panoptic form: JSON files with segments_info, such as panoptic_train.json, and a PNG for each "
    "image in a folder of the same name (panoptic_train)"
)


def open_panoptic(source: str, settings: DataSettings) -> PanopticData:
    """Find out what `source` is and open it: `digit-scenes`, a folder or a zip archive.

    Raises UsageError if there is nothing of that name, OrchardError if what is there cannot be used.
    """
    if source == DIGIT_SCENES:
        return open_digit_scenes(source)
    with reading(source):
        files = files_at(source, "segments", EXPECTED, (DIGIT_SCENES,))
        tables = find_tables(files, files.names()[0])
        if not tables:
            raise OrchardError(f"{source} has no segments; {EXPECTED}")
        return collect(read_tables(source, tables, files), settings)


def recognise(source: str) -> bool:
    """Whether a path that exists holds segments, by what is in its JSON files."""
    path = Path(source).expanduser()
    try:
        if not path.is_dir() and not (path.suffix.lower() == ".zip" and path.is_file()):
            return False
        files = Folder(path) if path.is_dir() else Archive(path)
        tables = [name for name in files.names()[0] if name.lower().endswith(".json")]
        return len(tables) <= MOST_TABLES and bool(find_tables(files, tables))
    except (OSError, zipfile.BadZipFile, OrchardError):
        return False
