"""Pascal VOC's annotations: an XML file for each picture, lists of pictures for each split (Everingham et al. 2010).

Coordinates are taken as they stand. VOC's own count pixels from 1, most tools that write the form from 0; the
difference is one pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from xml.etree import ElementTree

from orchard.data.boxes.collect import Annotated, Box, Found
from orchard.data.boxes.picture_files import usual
from orchard.data.coco import base
from orchard.data.contracts import Problem
from orchard.data.files import Files
from orchard.data.label_words import sort_classes
from orchard.data.walk import IMAGES, ending_of

EDGES = ("xmin", "ymin", "xmax", "ymax")
LISTS = {"train": "train", "val": "validation", "test": "test"}  # the file of a split in ImageSets/Main


def find_voc(files: Files) -> list[str]:
    """The XML files in a folder called Annotations."""
    return [name for name in files.names()[0] if name.endswith(".xml") and "Annotations" in name.split("/")[:-1]]


def read_voc(files: Files, source: str, names: list[str]) -> Found:
    """Everything that is annotated. Without lists in ImageSets/Main no split is given."""
    everything = files.names()[0]
    splits = _splits(files, everything)
    pictures_of: dict[str, list[str]] = defaultdict(list)
    for path in everything:
        if ending_of(path) in IMAGES:
            pictures_of[_stem(path)].append(path)
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
    files: Files, name: str, pictures_of: Mapping[str, list[str]], split: str, problems: list[Problem]
) -> Annotated | None:
    """What one XML file says; None, and a line on the list of problems, where it cannot be used."""
    try:
        with files.open(name) as file:
            root = ElementTree.parse(file).getroot()
        boxes = [_box(one, number) for number, one in enumerate(root.iter("object"), 1)]
        size = int(root.findtext("size/width", "0")), int(root.findtext("size/height", "0"))
    except (ElementTree.ParseError, ValueError) as error:
        problems.append(Problem(name, f"is not in the form of VOC: {error}"))
        return None
    stated = base(root.findtext("filename", "").strip())
    paths = usual(pictures_of.get(_stem(name)) or pictures_of.get(_stem(stated)) or [])
    if len(paths) > 1:  # a mask of the same name, say
        paths = [path for path in paths if base(path) == stated] or paths
    if len(paths) == 1:
        return Annotated(paths[0], boxes, split, name, size if all(size) else None)
    if paths:
        what = f"annotates one of several pictures ({', '.join(paths[:3])}); state which as its filename"
    else:
        what = f"annotates a picture that is not there; expected {_stem(name)}.jpg or another kind"
    problems.append(Problem(name, what))
    return None


def _box(one: ElementTree.Element, number: int) -> Box:
    """Raises ValueError for an object without a name or a box."""
    label = one.findtext("name", "").strip()
    if not label:
        raise ValueError(f"object {number} has no name")
    try:
        left, top, right, bottom = (float(one.findtext(f"bndbox/{edge}", "")) for edge in EDGES)
    except ValueError:
        raise ValueError(f"object {number} ('{label}') has no box of numbers {', '.join(EDGES)}") from None
    difficult = one.findtext("difficult", "0").strip() == "1"
    return Box(label, (left, top, right, bottom), difficult, which=f", object {number}")


def _stem(name: str) -> str:
    return base(name).rsplit(".", 1)[0]
