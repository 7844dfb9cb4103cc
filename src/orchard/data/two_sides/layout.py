"""Which side and which split a picture is of, by the folders that it is in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchard.data.collect import SPLIT_WORDS
from orchard.data.walk import IMAGES, ending_of

SIDE = re.compile(rf"({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})?[ _-]?([AB])")
LAYOUTS = "folders A and B, or trainA, trainB, testA and testB"


@dataclass(frozen=True)
class Place:
    """Where a picture belongs. The two of a pair have the same split and the same stem."""

    side: str  # "A" or "B"
    split: str  # "train", "validation", "test", or empty where none is given
    stem: str  # the path without the folders of side and split, and without the ending


def place_of(name: str) -> Place | None:
    """`trainA/1.png`, `A/train/1.png` and `train/A/1.png` are all A's; None for what is in no folder of a side."""
    *folders, last = name.split("/")
    found = next((n for n, folder in enumerate(folders) if SIDE.fullmatch(folder)), None)
    if found is None:
        return None
    word, side = SIDE.fullmatch(folders[found]).groups()  # type: ignore[union-attr]
    rest = folders[:found] + folders[found + 1 :]
    splits = [word] if word else [folder for folder in rest if folder.lower() in SPLIT_WORDS][:1]
    rest = [folder for folder in rest if folder not in splits]
    split = SPLIT_WORDS[splits[0].lower()] if splits else ""
    return Place(side, split, "/".join([*rest, last.rpartition(".")[0]]))


def pictures_of(names: Iterable[str]) -> list[str]:
    """The files that are pictures by their names."""
    return [name for name in names if ending_of(name) in IMAGES]


def sides_of(folders: Iterable[str]) -> set[str]:
    """The sides that have a folder, which may be empty."""
    return {place.side for folder in folders if (place := place_of(f"{folder}/x.png"))}


def shared_stems(names: Sequence[str]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(split, stem) of the pictures that have one of their name on the other side, and of those that have none."""
    sides: dict[str, set[tuple[str, str]]] = {"A": set(), "B": set()}
    for name in pictures_of(names):
        if place := place_of(name):
            sides[place.side].add((place.split, place.stem))
    return sides["A"] & sides["B"], sides["A"] ^ sides["B"]
