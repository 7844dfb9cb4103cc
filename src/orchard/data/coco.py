"""What all of COCO's JSON files have: images, annotations and categories (Lin et al. 2014, arXiv:1405.0312)."""

from __future__ import annotations

import json
import re
from typing import Any

from orchard.data.collect import SPLIT_WORDS
from orchard.data.files import Files
from orchard.errors import OrchardError

KEYS = ("images", "annotations", "categories")


def read_table(files: Files, name: str, key: str) -> dict[str, Any] | None:
    """A JSON file, if it has the parts of COCO's form and annotations with `key` in it."""
    try:
        with files.open(name) as file:
            table = json.load(file)
    except (ValueError, OSError, RecursionError):
        return None
    if not isinstance(table, dict) or not all(isinstance(table.get(part), list) for part in KEYS):
        return None
    return table if any(isinstance(one, dict) and key in one for one in table["annotations"]) else None


def splits_of(source: str, tables: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The split of each table, which its name says; of one alone it may be empty. OrchardError where several do not."""
    splits = {name: split_of(name) for name in tables}
    if all(splits.values()):
        return splits
    if len(tables) > 1:
        unclear = next(name for name, split in splits.items() if not split)
        raise OrchardError(f"{source}: the name of {unclear} says no split; expected train, val or test in it")
    return dict.fromkeys(tables, "")


def base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def split_of(name: str) -> str:
    """The split that a file's name says: the first of its words that means one, numbers left aside."""
    words = re.findall(r"[a-z]+", base(name).lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")
