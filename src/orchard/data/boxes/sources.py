"""From what a person wrote after --data to the set of pictures with boxes that it means."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchard.data.boxes.coco import find_coco, read_coco
from orchard.data.boxes.collect import Found, collect
from orchard.data.boxes.contracts import DetectionData
from orchard.data.boxes.named import DIGIT_SCENES, open_digit_scenes
from orchard.data.boxes.picture_files import Neighbours
from orchard.data.boxes.voc import find_voc, read_voc
from orchard.data.boxes.yolo import find_yolo, holds_boxes, read_yolo
from orchard.data.files import Archive, Files, Folder, files_at, reading
from orchard.data.settings import DataSettings
from orchard.errors import OrchardError

MOST_TABLES = 64  # JSON files that are looked into; a set has a few, more belong to something else
PARTS = {"Pascal VOC": "Annotations", "YOLO": "labels"}  # the folders of their annotations
EXPECTED = (
    "expected JSON files in the form of COCO, XML files in a folder Annotations (Pascal VOC), or text files in labels "
    "beside images (YOLO)"
)


def open_boxes(source: str, settings: DataSettings, masks: bool = False) -> DetectionData:
    """Find out what `source` is and open it: `digit-scenes`, a folder, a zip archive or a COCO file.

    Pictures of COCO files are looked for in the folder and below, else in the folder above and the folders in it
    (`Neighbours`); or in `settings.root` alone. A folder Annotations is VOC's, a folder labels YOLO's, with pictures in
    the folder above. With `masks` every object has its mask. Raises UsageError if there is nothing of that name,
    OrchardError if what is there cannot be used.
    """
    if source == DIGIT_SCENES:
        return open_digit_scenes(source, masks=masks)
    path = Path(source).expanduser()
    with reading(source):
        if path.suffix.lower() == ".json" and path.is_file():
            return collect(_one_table(path, source, settings), settings, masks)
        files = files_at(source, "boxes", EXPECTED, (DIGIT_SCENES,))
        return collect(_look(files, source, settings), settings, masks)


def open_instances(source: str, settings: DataSettings) -> DetectionData:
    """The same with the masks of the objects."""
    return open_boxes(source, settings, masks=True)


def recognise(source: str) -> bool:
    """Whether a path that exists holds boxes, by what is in its files; what is damaged is for others to say."""
    path = Path(source).expanduser()
    try:
        if path.suffix.lower() == ".json" and path.is_file():
            return bool(find_coco(Folder(path.parent), [path.name]))
        if not path.is_dir() and not (path.suffix.lower() == ".zip" and path.is_file()):
            return False
        files = Folder(path) if path.is_dir() else Archive(path)
        tables = [name for name in files.names()[0] if name.lower().endswith(".json")]
        return any(_other_layouts(files)[1:]) or (len(tables) <= MOST_TABLES and bool(find_coco(files, tables)))
    except (OSError, zipfile.BadZipFile, OrchardError):
        return False


def _look(files: Files, source: str, settings: DataSettings) -> Found:
    """Whose form the annotations have; COCO's before VOC's where both are there, as it says what is a crowd. What is
    not taken is said."""
    tables = find_coco(files, files.names()[0])
    whole, xml, pairs = _other_layouts(files)
    if tables:
        found = _read_tables(source, tables, files, settings)
    elif xml:
        found = read_voc(whole, source, xml)
    elif pairs:
        found = read_yolo(whole, source, pairs)
    else:
        raise OrchardError(f"{source} has no boxes; {EXPECTED}")
    others = {"Pascal VOC": xml if tables else [], "YOLO": list(pairs.values()) if tables or xml else []}
    notes = [
        f"{len(names):,} files in the form of {form} are there too, such as {names[0]}; to read those, name their "
        f"folder {PARTS[form]} in place of {source}"
        for form, names in others.items()
        if names
    ]
    return replace(found, notes=[*found.notes, *notes])


def _other_layouts(files: Files) -> tuple[Files, list[str], dict[str, str]]:
    """VOC's XML files, and YOLO's pictures with their text files if there are boxes in these; and where they are.

    Of a folder Annotations or labels that is what is in it, by the paths in the folder above, which has the pictures.
    """
    xml, pairs = find_voc(files), find_yolo(files)
    if not (xml or pairs) and isinstance(files, Folder) and _absolute(files).name in PARTS.values():
        part, files = f"{_absolute(files).name}/", Folder(_absolute(files).parent)
        xml = [name for name in find_voc(files) if name.startswith(part)]
        pairs = {picture: text for picture, text in find_yolo(files).items() if text.startswith(part)}
    return files, xml, pairs if pairs and holds_boxes(files, pairs) else {}


def _absolute(files: Files) -> Path:
    return Path(os.path.abspath(files.path))  # noqa: PTH100 - a link stays what it is called


def _read_tables(source: str, tables: dict[str, dict[str, Any]], files: Files, settings: DataSettings) -> Found:
    """COCO's files; their pictures are below `files`, or beside it, or in `settings.root`."""
    if settings.root:
        return read_coco(source, tables, Folder(Path(settings.root).expanduser()))
    return read_coco(source, tables, files, Neighbours(_absolute(files).parent) if isinstance(files, Folder) else None)


def _one_table(path: Path, source: str, settings: DataSettings) -> Found:
    """One COCO file."""
    tables = find_coco(Folder(path.parent), [path.name])
    if not tables:
        raise OrchardError(f"{source} is no table in the form of COCO: images, annotations with boxes, categories")
    return _read_tables(source, tables, Folder(path.parent), settings)
