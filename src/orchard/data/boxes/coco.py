"""COCO's annotations: JSON files with pictures, categories, boxes and masks (Lin et al. 2014, arXiv:1405.0312)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from orchard.data.boxes.collect import Annotated, Box, Found
from orchard.data.collect import SPLIT_WORDS
from orchard.data.contracts import Problem
from orchard.data.files import Files
from orchard.data.walk import IMAGES
from orchard.errors import OrchardError

KEYS = ("images", "annotations", "categories")


def find_coco(files: Files, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of these files, the JSON with boxes in the form of COCO; where a split has several, that of instances."""
    tables = {}
    for name in names:
        table = _read(files, name) if name.lower().endswith(".json") else None
        if table is not None:
            tables[name] = table
    instances = {split_of(name) for name in tables if "instances" in _base(name)}
    return {
        name: table for name, table in tables.items() if "instances" in _base(name) or split_of(name) not in instances
    }


def read_coco(source: str, tables: dict[str, dict[str, Any]], files: Files) -> Found:
    """Everything in these tables, of pictures in `files`. A table's split is the word for one in its name.

    Raises OrchardError for tables that contradict each other or name pictures that are not there.
    """
    categories: dict[int, str] = {}
    for name, table in tables.items():
        for one in table["categories"]:
            if categories.setdefault(int(one["id"]), str(one["name"])) != str(one["name"]):
                raise OrchardError(f"{name}: category {one['id']} is '{one['name']}', in another file it is not")
    ids = tuple(sorted(categories))
    if len(set(categories.values())) != len(ids):
        raise OrchardError(f"{source}: two categories have the same name; give each its own")
    splits = {name: split_of(name) for name in tables}
    if not all(splits.values()):
        if len(tables) > 1:
            unclear = next(name for name, split in splits.items() if not split)
            raise OrchardError(f"{source}: the name of {unclear} says no split; expected train, val or test in it")
        splits = dict.fromkeys(tables, "")
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in files.names()[0]:
        if path[path.rfind(".") :].lower() in IMAGES:
            by_name[_base(path)].append(path)
    pictures: list[Annotated] = []
    problems: list[Problem] = []
    for name, table in tables.items():
        try:
            pictures += _pictures(name, table, splits[name], categories, by_name, problems)
        except (KeyError, TypeError, ValueError) as error:
            raise OrchardError(f"{name} is no table in the form of COCO: {type(error).__name__} {error}") from None
    reason = f"it has boxes in the form of COCO in {', '.join(tables)}"
    return Found(source, "COCO", reason, files, pictures, tuple(categories[n] for n in ids), ids, problems)


def _pictures(
    where: str,
    table: dict[str, Any],
    split: str,
    categories: dict[int, str],
    by_name: dict[str, list[str]],
    problems: list[Problem],
) -> list[Annotated]:
    """The pictures of one table, found by their names among the files that are there."""
    boxes: dict[Any, list[Box]] = {one["id"]: [] for one in table["images"]}
    for one in table["annotations"]:
        key = f"{where}, annotation {one.get('id')}"
        if one["category_id"] not in categories:
            problems.append(Problem(key, f"category {one['category_id']} is not in the table"))
        elif one["image_id"] not in boxes:
            problems.append(Problem(key, f"picture {one['image_id']} is not in the table"))
        else:
            left, top, width, height = map(float, one["bbox"])
            corners = left, top, left + width, top + height
            crowd, mask = bool(one.get("iscrowd")), one.get("segmentation")
            box = Box(categories[one["category_id"]], corners, crowd, mask, f", annotation {one.get('id')}")
            boxes[one["image_id"]].append(box)
    found = []
    for image in table["images"]:
        paths = by_name.get(_base(image["file_name"]), [])
        exact = [path for path in paths if f"/{path}".endswith(f"/{image['file_name']}")] or paths
        best = next((path for path in exact if split and split in map(split_of, path.split("/")[:-1])), None)
        size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
        if not exact:
            raise OrchardError(f"{where} names '{image['file_name']}', and there is no such picture")
        found.append(Annotated(best or exact[0], boxes[image["id"]], split, where, size))
    return found


def split_of(name: str) -> str:
    """The split that a file's name says: the first of its words that means one, numbers left aside."""
    words = re.findall(r"[a-z]+", _base(name).lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _read(files: Files, name: str) -> dict[str, Any] | None:
    """A JSON file, if it has the parts of COCO's form and boxes in it."""
    try:
        with files.open(name) as file:
            table = json.load(file)
    except (ValueError, OSError, RecursionError):
        return None
    if not isinstance(table, dict) or not all(isinstance(table.get(key), list) for key in KEYS):
        return None
    return table if any(isinstance(one, dict) and "bbox" in one for one in table["annotations"]) else None
