"""From what a person wrote after --data to the set of images with masks that it means."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

from orchard.data.files import Archive, Folder, files_at, reading
from orchard.data.masks.collect import collect
from orchard.data.masks.contracts import MaskData
from orchard.data.masks.layouts import find_layout, read_classes
from orchard.data.masks.named import CAMVID, CAMVID_CLASSES, CAMVID_UNLABELLED, DIGIT_SCENES, open_digit_scenes
from orchard.data.settings import DataSettings
from orchard.errors import OrchardError, UsageError

KNOWN = (DIGIT_SCENES, f"{CAMVID}:FOLDER")  # names of sets
EXPECTED = (
    "expected PNG masks with a number for each pixel: in SegmentationClass beside JPEGImages (Pascal VOC), in "
    "trainannot beside train, or in masks beside images, under the names of their images"
)


def open_masks(source: str, settings: DataSettings) -> MaskData:
    """Find out what `source` is and open it: `digit-scenes`, `camvid:FOLDER`, a folder or a zip archive.

    Raises UsageError if there is nothing of that name, OrchardError if what is there cannot be used.
    """
    if source == DIGIT_SCENES:
        return open_digit_scenes(source)
    ignore_index: int | None = getattr(settings, "ignore_index", None)  # settings of any data will do
    name, _, place = source.partition(":")
    if name == CAMVID:
        return _open_camvid(source, place or settings.root or "", settings, ignore_index)
    with reading(source):
        files = files_at(source, "masks", EXPECTED, KNOWN)
        layout = find_layout(files)
        if layout is None:
            raise OrchardError(f"{source} has no masks; {EXPECTED}")
        return collect(source, files, layout, read_classes(files), settings, ignore_index)


def recognise(source: str) -> bool:
    """Whether a path that exists holds masks, by the names of folders and files."""
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return find_layout(Folder(path)) is not None
        return path.suffix.lower() == ".zip" and path.is_file() and find_layout(Archive(path)) is not None
    except (OSError, zipfile.BadZipFile, OrchardError, UnicodeDecodeError):
        return False


def _open_camvid(source: str, place: str, settings: DataSettings, ignore_index: int | None) -> MaskData:
    """CamVid as SegNet's authors laid it out, with the names of its classes; class 11 is ignored."""
    if not place:
        raise UsageError("CamVid lies in a folder with train and trainannot: name it as camvid:FOLDER")
    ignore_index = CAMVID_UNLABELLED if ignore_index is None else ignore_index
    files = files_at(place, "masks", EXPECTED, KNOWN)
    layout = find_layout(files)
    if layout is None or layout.format != "annot folders":
        raise OrchardError(f"{place} is not CamVid as SegNet's authors have it; expected folders train and trainannot")
    found = collect(source, files, layout, CAMVID_CLASSES, settings, ignore_index)
    return dataclasses.replace(found, name=CAMVID)
