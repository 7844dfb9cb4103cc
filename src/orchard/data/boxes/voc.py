"""Pascal VOC's annotations: an XML file for each picture, lists of pictures for each split (Everingham et al. 2010).

Coordinates are taken as they stand. VOC's own count pixels from 1, most tools that write the form from 0; the
difference is one pixel.
"""

from __future__ import annotations

from xml.etree import ElementTree

from orchard.data.boxes.collect import Annotated, Box, Found
from orchard.data.contracts import Problem
from orchard.data.files import Files
from orchard.data.label_words import sort_classes
from orchard.data.walk import IMAGES
from orchard.errors import OrchardError

LISTS = {"train": "train", "val": "validation", "test": "test"}  # the file of a split in ImageSets/Main


def find_voc(files: Files) -> list[str]:
    """The XML files in a folder called Annotations."""
    return [name for name in files.names()[0] if name.endswith(".xml") and "Annotations" in name.split("/")[:-1]]


def read_voc(files: Files, source: str, names: list[str]) -> Found:
    """Everything that is annotated. Without lists in ImageSets/Main no split is given.

    Raises OrchardError for annotations of pictures that are not there.
    """
    everything = files.names()[0]
    splits = _splits(files, everything)
    pictures_of = {_stem(path): path for path in everything if path[path.rfind(".") :].lower() in IMAGES}
    pictures: list[Annotated] = []
    problems: list[Problem] = []
    for name in names:
        split = splits.get(_stem(name), "")
        if splits and not split:
            continue  # a picture in no list is in no split
        picture = _read(files, name, pictures_of, split, problems)
        if picture is not None:
            pictures.append(picture)
    classes = sort_classes({box.label for picture in pictures for box in picture.boxes})
    lists = "with lists in ImageSets/Main" if splits else "without lists of splits"
    reason = f"it has {len(names)} XML files in the form of Pascal VOC, {lists}"
    return Found(source, "VOC", reason, files, pictures, classes, None, problems)


def _splits(files: Files, everything: list[str]) -> dict[str, str]:
    """The split of each picture by its name without an ending."""
    found: dict[str, str] = {}
    for name in everything:
        if "/ImageSets/Main/" in f"/{name}" and name.endswith(".txt") and _stem(name) in LISTS:
            with files.open(name) as file:
                lines = file.read().decode("utf-8").splitlines()
            found.update((line.split()[0], LISTS[_stem(name)]) for line in lines if line.strip())
    return found


def _read(
    files: Files, name: str, pictures_of: dict[str, str], split: str, problems: list[Problem]
) -> Annotated | None:
    try:
        with files.open(name) as file:
            root = ElementTree.parse(file).getroot()
        boxes = []
        for one in root.iter("object"):
            corners = [float(one.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = corners
            difficult = one.findtext("difficult", "0").strip() == "1"
            boxes.append(Box(one.findtext("name", "").strip(), (left, top, right, bottom), difficult))
        size = int(root.findtext("size/width", "0")), int(root.findtext("size/height", "0"))
    except (ElementTree.ParseError, ValueError) as error:
        problems.append(Problem(name, f"is not in the form of VOC: {error}"))
        return None
    picture = pictures_of.get(_stem(name)) or pictures_of.get(_stem(root.findtext("filename", "")))
    if picture is None:
        raise OrchardError(f"{name} annotates a picture that is not there; expected {_stem(name)}.jpg or another kind")
    return Annotated(picture, boxes, split, name, size if all(size) else None)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
