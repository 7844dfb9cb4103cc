"""COCO's annotations: JSON files with pictures, categories, boxes and masks (Lin et al. 2014, arXiv:1405.0312)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchard.data.boxes.collect import Annotated, Box, Found
from orchard.data.boxes.picture_files import PictureFiles, folders_of
from orchard.data.coco import base, read_table, split_of, splits_of
from orchard.data.contracts import Problem
from orchard.data.files import Files
from orchard.errors import OrchardError


def find_coco(files: Files, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of these files, the JSON with boxes in the form of COCO; where a split has several, that of instances."""
    tables = {}
    for name in names:
        table = read_table(files, name, "bbox") if name.lower().endswith(".json") else None
        if table is not None:
            tables[name] = table
    instances = {split_of(name) for name in tables if "instances" in base(name)}
    return {
        name: table for name, table in tables.items() if "instances" in base(name) or split_of(name) not in instances
    }


def read_coco(source: str, tables: dict[str, dict[str, Any]], files: Files, nearby: Files | None = None) -> Found:
    """Everything in these tables, of pictures in `files`, or in `nearby` where that has more of them.

    A table's split is the word for one in its name.

    Raises OrchardError for tables that contradict each other, and where none of their pictures is there.
    """
    categories: dict[int, str] = {}
    for name, table in tables.items():
        with _in_form(name):
            for one in table["categories"]:
                if categories.setdefault(int(one["id"]), str(one["name"])) != str(one["name"]):
                    raise OrchardError(f"{name}: category {one['id']} is '{one['name']}', in another file it is not")
    ids = tuple(sorted(categories))
    if len(set(categories.values())) != len(ids):
        raise OrchardError(f"{source}: two categories have the same name; give each its own")
    splits = splits_of(source, tables)
    named = {}
    for name, table in tables.items():
        with _in_form(name):
            named[name] = [str(image["file_name"]) for image in table["images"]]
    chosen = _where(source, named, splits, files, nearby)
    pictures: list[Annotated] = []
    problems: list[Problem] = []
    for name, table in tables.items():
        with _in_form(name):
            pictures += _pictures(name, table, splits[name], categories, chosen, problems)
    notes = []
    if chosen.files is nearby:
        notes.append(f"its pictures were found in {folders_of(nearby.path, [one.name for one in pictures])}")
    reason = f"it has boxes in the form of COCO in {', '.join(tables)}"
    classes = tuple(categories[n] for n in ids)
    return Found(source, "COCO", reason, chosen.files, pictures, classes, ids, problems, notes)


def _where(
    source: str, named: Mapping[str, list[str]], splits: Mapping[str, str], files: Files, nearby: Files | None
) -> PictureFiles:
    """The place that has most of the pictures that tables name, each of them once.

    Raises OrchardError where none has any.
    """

    def count(place: PictureFiles) -> tuple[int, int]:
        """How many can be told, and how many are there at all."""
        paths = [len(place.find(one, splits[name])) for name, ones in named.items() for one in ones]
        return paths.count(1), len(paths) - paths.count(0)

    chosen = PictureFiles(files)
    found, total = count(chosen), sum(map(len, named.values()))
    looked = f"{files.path} and below"
    if found[0] < total and nearby is not None:
        other = PictureFiles(nearby)
        more = count(other)
        looked += f", in {nearby.path} and the folders in it"
        if more > found:
            chosen, found = other, more
    if total and not found[1]:
        first = next(one for ones in named.values() for one in ones)
        raise OrchardError(
            f"{source}: none of the {total} pictures that {', '.join(named)} names is there, such as '{first}'; looked "
            f"in {looked}; name the folder that has them with --set data.root=FOLDER"
        )
    return chosen


def _pictures(
    where: str,
    table: dict[str, Any],
    split: str,
    categories: dict[int, str],
    files: PictureFiles,
    problems: list[Problem],
) -> list[Annotated]:
    """The pictures of one table, found by their names among the files that are there."""
    boxes: dict[Any, list[Box]] = {one["id"]: [] for one in table["images"]}
    for one in table["annotations"]:
        which = f", annotation {one.get('id')}"
        corners = _corners(one.get("bbox"))
        if one.get("category_id") not in categories:
            problems.append(Problem(where + which, f"category {one.get('category_id')} is not in the table"))
        elif one.get("image_id") not in boxes:
            problems.append(Problem(where + which, f"picture {one.get('image_id')} is not in the table"))
        elif corners is None:
            problems.append(Problem(where + which, f"bbox is {one.get('bbox')}; expected four numbers"))
        else:
            crowd, mask = bool(one.get("iscrowd")), one.get("segmentation")
            boxes[one["image_id"]].append(Box(categories[one["category_id"]], corners, crowd, mask, which))
    found: dict[Any, Annotated] = {}
    for image in table["images"]:
        key, name = f"{where}, image {image['id']}", str(image["file_name"])
        paths = files.find(name, split)
        size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
        if image["id"] in found:
            problems.append(Problem(key, f"'{name}' has the id of another picture"))
        elif not paths:
            problems.append(Problem(key, f"names '{name}', and there is no such picture"))
        elif len(paths) > 1:
            some = ", ".join(paths[:3])
            problems.append(Problem(key, f"names '{name}', of which there are several ({some}); give its folder too"))
        else:
            found[image["id"]] = Annotated(paths[0], boxes[image["id"]], split, where, size)
    return list(found.values())


def _corners(box: Any) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a `bbox`, if it is one."""
    try:
        left, top, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        return None
    return left, top, left + width, top + height


@contextmanager
def _in_form(name: str) -> Iterator[None]:
    """What a table has not, or has otherwise than COCO, is one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OrchardError(f"{name} is no table in the form of COCO: {type(error).__name__} {error}") from None
