"""YOLO's annotations: a text file for each picture, a line for each box, in a folder labels beside images."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import yaml

from orchard.data.boxes.collect import Annotated, Box, Found
from orchard.data.collect import SPLIT_WORDS
from orchard.data.contracts import Problem
from orchard.data.files import Files
from orchard.data.walk import IMAGES

MOST_CLASSES = 10_000  # where no file names them; a larger number is a mistake
LOOKED_AT = 20  # text files, of which the first with a box tells


def find_yolo(files: Files) -> dict[str, str]:
    """Pictures below a folder images and the text file of each below a folder labels, where that is there."""
    names = set(files.names()[0])
    pictures = [name for name in sorted(names) if name[name.rfind(".") :].lower() in IMAGES]
    pairs = {name: _labels(name) for name in pictures if "images" in name.split("/")[:-1]}
    return pairs if any(text in names for text in pairs.values()) else {}


def holds_boxes(files: Files, pairs: dict[str, str]) -> bool:
    """Whether the first text files in which something stands hold boxes, and no captions or other words."""
    names = set(files.names()[0])
    problems: list[Problem] = []
    for text in islice((text for text in pairs.values() if text in names), LOOKED_AT):
        if _boxes(files, text, problems):
            return True
    return False


def read_yolo(files: Files, source: str, pairs: dict[str, str]) -> Found:
    """Everything in these files; a picture without a text file has no objects.

    A line is a class's number, then middle x, middle y, width and height as shares of the picture. Splits are named by
    folders, classes by data.yaml or classes.txt, else by their numbers.
    """
    everything = files.names()[0]
    there = set(everything)
    problems: list[Problem] = []
    names = _classes(files, everything)
    boxes = {
        name: _boxes(files, text, problems, len(names) or MOST_CLASSES) if text in there else []
        for name, text in pairs.items()
    }
    texts = {text for text in there if text.endswith(".txt") and "labels" in text.split("/")[:-1]}
    problems += [
        Problem(text, "there is no picture for it in a folder images")
        for text in sorted(texts - set(pairs.values()))
        if text.rsplit("/", 1)[-1] != "classes.txt"
    ]
    count = 1 + max((int(box.label) for some in boxes.values() for box in some), default=-1)
    classes = names or tuple(str(n) for n in range(count))
    splits = {name: _split(name) for name in pairs}
    if not all(splits.values()):
        splits = dict.fromkeys(pairs, "")
    pictures = [
        Annotated(name, [replace(b, label=classes[int(b.label)]) for b in some], splits[name], pairs[name], None, True)
        for name, some in boxes.items()
    ]
    reason = f"it has {len(pairs)} pictures in images and text files for them in labels, as YOLO does"
    return Found(source, "YOLO", reason, files, pictures, classes, None, problems)


def _labels(name: str) -> str:
    """images/a/1.jpg → labels/a/1.txt: the last folder called images is exchanged."""
    parts = name.split("/")
    last = max(n for n, part in enumerate(parts[:-1]) if part == "images")
    return "/".join([*parts[:last], "labels", *parts[last + 1 :]]).rsplit(".", 1)[0] + ".txt"


def _split(name: str) -> str:
    return next((SPLIT_WORDS[part.lower()] for part in name.split("/")[:-1] if part.lower() in SPLIT_WORDS), "")


def _boxes(files: Files, name: str, problems: list[Problem], classes: int = MOST_CLASSES) -> list[Box]:
    """The boxes of one text file, their labels the numbers of so many classes."""
    with files.open(name) as file:
        lines = file.read().decode("utf-8", "replace").splitlines()
    boxes = []
    for number, line in enumerate(lines, 1):
        which = f", line {number}"
        try:
            label, x, y, width, height = line.split()
            middle, half, place = (float(x), float(y)), (float(width) / 2, float(height) / 2), int(label)
        except ValueError:
            if line.strip():
                problems.append(Problem(name + which, "expected a class and four numbers"))
            continue
        if not 0 <= place < classes:
            problems.append(Problem(name + which, f"is of class {place}; expected 0 to {classes - 1}"))
            continue
        corners = middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]
        boxes.append(Box(str(place), corners, which=which))
    return boxes


def _classes(files: Files, everything: list[str]) -> tuple[str, ...]:
    """What the classes are called, if a file says so."""
    for name in everything:
        base = name.rsplit("/", 1)[-1]
        if base in ("data.yaml", "data.yml", "dataset.yaml"):
            with files.open(name) as file:
                names: Any = (yaml.safe_load(file) or {}).get("names", ())
            return tuple(str(names[n]) for n in sorted(names)) if isinstance(names, dict) else tuple(map(str, names))
        if base == "classes.txt":
            with files.open(name) as file:
                return tuple(line.strip() for line in file.read().decode("utf-8").splitlines() if line.strip())
    return ()
