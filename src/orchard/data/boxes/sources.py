"""From what a person wrote after --data to the set of pictures with boxes that it means."""

from __future__ import annotations

import difflib
import zipfile
from pathlib import Path

from orchard.data.boxes.coco import find_coco, read_coco
from orchard.data.boxes.collect import Found, collect
from orchard.data.boxes.contracts import DetectionData
from orchard.data.boxes.named import DIGIT_SCENES, open_digit_scenes
from orchard.data.boxes.voc import find_voc, read_voc
from orchard.data.boxes.yolo import find_yolo, holds_boxes, read_yolo
from orchard.data.files import Archive, Files, Folder
from orchard.data.settings import DataSettings
from orchard.errors import OrchardError, UsageError

MOST_TABLES = 64  # JSON files that are looked into; a set has a few, more belong to something else
EXPECTED = (
    "expected JSON files in the form of COCO, XML files in a folder Annotations (Pascal VOC), or text files in labels "
    "beside images (YOLO)"
)


def open_boxes(source: str, settings: DataSettings, masks: bool = False) -> DetectionData:
    """Find out what `source` is and open it: `digit-scenes`, a folder, a zip archive or a COCO file.

    Pictures of a COCO file are looked for beside it and below, or in `settings.root`. With `masks` every object has its
    mask. Raises UsageError if there is nothing of that name, OrchardError if what is there cannot be used.
    """
    if source == DIGIT_SCENES:
        return open_digit_scenes(source, masks=masks)
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return collect(_look(Folder(path), source), settings, masks)
        if path.suffix.lower() == ".zip" and path.is_file():
            return collect(_look(Archive(path), source), settings, masks)
        if path.suffix.lower() == ".json" and path.is_file():
            return collect(_one_table(path, source, settings), settings, masks)
    except zipfile.BadZipFile as error:
        raise OrchardError(f"{source} is a damaged zip archive: {error}") from None
    except OSError as error:
        raise OrchardError(f"{source} cannot be read: {error.strerror or error}") from None
    if path.exists():
        raise UsageError(f"{source} is no set with boxes; {EXPECTED}")
    near = difflib.get_close_matches(source.lower(), [DIGIT_SCENES], cutoff=0.6)
    advice = f"did you mean {DIGIT_SCENES}?" if near else f"the set known by name is {DIGIT_SCENES}"
    raise UsageError(f"there is no file or folder '{source}'; {advice}")


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
        pairs = find_yolo(files)
        return (
            bool(find_voc(files))
            or (bool(pairs) and holds_boxes(files, pairs))
            or (len(tables) <= MOST_TABLES and bool(find_coco(files, tables)))
        )
    except (OSError, zipfile.BadZipFile, OrchardError):
        return False


def _look(files: Files, source: str) -> Found:
    """Whose form the annotations have; COCO's before VOC's where both are there, as it says what is a crowd."""
    tables = find_coco(files, files.names()[0])
    if tables:
        return read_coco(source, tables, files)
    xml = find_voc(files)
    if xml:
        return read_voc(files, source, xml)
    pairs = find_yolo(files)
    if pairs:
        return read_yolo(files, source, pairs)
    raise OrchardError(f"{source} has no boxes; {EXPECTED}")


def _one_table(path: Path, source: str, settings: DataSettings) -> Found:
    """One COCO file; its pictures are beside it, below, or in `settings.root`."""
    tables = find_coco(Folder(path.parent), [path.name])
    if not tables:
        raise OrchardError(f"{source} is no table in the form of COCO: images, annotations with boxes, categories")
    pictures = Path(settings.root).expanduser() if settings.root else path.parent
    return read_coco(source, tables, Folder(pictures))
