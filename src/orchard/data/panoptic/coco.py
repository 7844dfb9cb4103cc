"""COCO's panoptic annotations: a JSON file with images, categories and the segments of each image, and a PNG for each
image with the segment of every pixel (Kirillov et al. 2018, arXiv:1801.00868)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchard.data.coco import base, read_table, split_of, splits_of
from orchard.data.contracts import Problem
from orchard.data.files import Files
from orchard.data.walk import IMAGES, ending_of
from orchard.errors import OrchardError

WORD = "panoptic"  # in the names of such files and of the folders of their PNGs


@dataclass(frozen=True)
class Segment:
    """One segment as a file lists it."""

    id: int
    category: int
    crowd: bool


@dataclass(frozen=True)
class Annotated:
    """One image as the files have it."""

    image: str  # its file
    map: str  # the PNG of its segments
    segments: tuple[Segment, ...]
    split: str = ""  # empty where none is given


@dataclass(frozen=True)
class Category:
    """One class."""

    name: str
    thing: bool


@dataclass(frozen=True)
class Found:
    """What reading annotations came to, before any image is looked at."""

    source: str
    files: Files
    images: list[Annotated]
    categories: dict[int, Category]
    problems: list[Problem]
    reason: str


def find_tables(files: Files, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of these files, the JSON with segments in the form of COCO; where names say which these are, others are not
    opened."""
    tables = [name for name in names if name.lower().endswith(".json")]
    named = [name for name in tables if WORD in base(name).lower()]
    read = {name: read_table(files, name, "segments_info") for name in named or tables}
    return {name: table for name, table in read.items() if table is not None}


def read_tables(source: str, tables: dict[str, dict[str, Any]], files: Files) -> Found:
    """Everything in these tables. A table's split is the word for one in its name.

    Raises OrchardError for tables that contradict each other or are not of the form.
    """
    splits = splits_of(source, tables)
    pictures = Pictures(files)
    categories: dict[int, Category] = {}
    images: list[Annotated] = []
    problems: list[Problem] = []
    for name, table in tables.items():
        try:
            for id, category in _categories(name, table["categories"]).items():
                if categories.setdefault(id, category) != category:
                    raise OrchardError(
                        f"{name}: category {id} ('{category.name}') has another name or isthing in another file"
                    )
            images += _images(name, table, splits[name], pictures, problems)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OrchardError(f"{name} is no table in COCO's panoptic form: {type(error).__name__} {error}") from None
    names = [one.name for one in categories.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OrchardError(f"{source}: two categories have the name '{twice}'; give each its own")
    reason = f"it has segments in COCO's panoptic form in {', '.join(tables)}"
    return Found(source, files, images, dict(sorted(categories.items())), problems, reason)


class Pictures:
    """The image files of a set by their names."""

    def __init__(self, files: Files):
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for path in files.names()[0]:
            if ending_of(path) in IMAGES:
                self.by_name[base(path)].append(path)

    def image(self, name: str, split: str) -> str | None:
        """The image of this name, outside of folders of PNGs; of several, the one in a folder named for the split."""
        paths = [path for path in self._ending(name) if WORD not in _folder(path).lower()]
        best = (path for path in paths if split and split in map(split_of, path.split("/")[:-1]))
        return next(best, next(iter(paths), None))

    def map(self, name: str, table: str) -> str | None:
        """The PNG of this name: in the folder that is named as the table, else in another one for such PNGs."""
        paths = self._ending(name)
        stem = base(table).rsplit(".", 1)[0]
        best = (path for path in paths if _folder(path) == stem)
        return next(best, next((path for path in paths if WORD in _folder(path).lower()), None))

    def _ending(self, name: str) -> list[str]:
        return [path for path in self.by_name.get(base(name), []) if f"/{path}".endswith(f"/{name}")]


def _categories(where: str, rows: Sequence[Mapping[str, Any]]) -> dict[int, Category]:
    for row in rows:
        if row.get("isthing") not in (0, 1):
            raise OrchardError(f"{where}: category {row['id']} has no isthing; expected 1 of things, 0 of stuff")
    return {int(row["id"]): Category(str(row["name"]), bool(row["isthing"])) for row in rows}


def _images(
    where: str, table: Mapping[str, Any], split: str, pictures: Pictures, problems: list[Problem]
) -> list[Annotated]:
    """The images of one table that have both files and segments of known categories."""
    known = {int(row["id"]) for row in table["categories"]}
    names = {row["id"]: str(row["file_name"]) for row in table["images"]}
    annotated: dict[Any, Annotated] = {}
    for row in table["annotations"]:
        key = f"{where}, {row['file_name']}"
        if row["image_id"] not in names:
            problems.append(Problem(key, f"is of image {row['image_id']}, which is not in the table"))
            continue
        name = names.pop(row["image_id"])
        image, map = pictures.image(name, split), pictures.map(str(row["file_name"]), where)
        segments = tuple(
            Segment(int(one["id"]), int(one["category_id"]), bool(one.get("iscrowd", 0)))
            for one in row["segments_info"]
        )
        strange = next((one for one in segments if one.category not in known), None)
        ids = {one.id for one in segments}
        if image is None:
            problems.append(Problem(key, f"there is no image {name}"))
        elif map is None:
            folder = base(where).rsplit(".", 1)[0]
            problems.append(Problem(key, f"there is no such PNG of segments; expected it in a folder {folder}"))
        elif strange is not None:
            what = f"segment {strange.id} is of category {strange.category}, which is not in the table"
            problems.append(Problem(key, what))
        elif len(ids) < len(segments):
            problems.append(Problem(key, "two segments have the same id"))
        else:
            annotated[row["image_id"]] = Annotated(image, map, segments, split)
    problems += [Problem(f"{where}, {name}", "has no annotation") for name in names.values()]
    return list(annotated.values())


def _folder(name: str) -> str:
    """The folder that a file is in, without those above."""
    return base(name.rpartition("/")[0])
