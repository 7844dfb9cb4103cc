"""Which mask belongs to which image: three ways of laying them out, each known by the names of folders.

- Pascal VOC: `JPEGImages`, `SegmentationClass`, and lists of a split's names in `ImageSets/Segmentation`;
- annot folders, as SegNet's CamVid has them: `train` and `trainannot`, `val` and `valannot`, `test` and `testannot`;
- mask folders: `images` and `masks` with files of the same names, and folders for splits in or above them, if there are
  splits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchard.data.collect import SPLIT_WORDS
from orchard.data.contracts import Problem
from orchard.data.files import Files
from orchard.data.walk import IMAGES, ending_of

LISTS = {"train": "train", "val": "validation", "test": "test"}  # the file of a split in ImageSets/Segmentation


class Pair(NamedTuple):
    """An image, its mask and the split that it is in; empty where none is given."""

    image: str
    mask: str
    split: str = ""


@dataclass(frozen=True)
class Layout:
    """What the names of files came to."""

    format: str
    reason: str
    pairs: list[Pair]
    problems: list[Problem] = field(default_factory=list)  # images without a mask, masks without an image


def find_layout(files: Files) -> Layout | None:
    """The first layout that these files have."""
    names = files.names()[0]
    for find in (_voc, _annot_folders, _mask_folders):
        found = find(files, names)
        if found is not None:
            return found
    return None


def _voc(files: Files, names: Sequence[str]) -> Layout | None:
    masks = {_stem(name): name for name in names if _is_mask(name) and _folder(name) == "SegmentationClass"}
    if not masks:
        return None
    images = {_stem(name): name for name in names if _is_image(name) and _folder(name) == "JPEGImages"}
    splits: dict[str, str] = {}
    for name in names:
        if f"/{name}".endswith(tuple(f"/ImageSets/Segmentation/{one}.txt" for one in LISTS)):
            with files.open(name) as file:
                lines = file.read().decode("utf-8").splitlines()
            splits.update((line.split()[0], LISTS[_stem(name)]) for line in lines if line.strip())
    wanted = splits or dict.fromkeys(masks, "")
    pairs, problems = [], []
    for stem, split in sorted(wanted.items()):
        if stem in masks and stem in images:
            pairs.append(Pair(images[stem], masks[stem], split))
        elif stem in images:
            problems.append(Problem(images[stem], f"has no mask; expected SegmentationClass/{stem}.png"))
        else:
            problems.append(Problem(masks.get(stem, stem), f"has no image; expected JPEGImages/{stem}.jpg"))
    lists = "with lists in ImageSets/Segmentation" if splits else "without lists of splits"
    return Layout("VOC masks", f"it has {len(masks)} masks in SegmentationClass, {lists}", pairs, problems)


def _annot_folders(files: Files, names: Sequence[str]) -> Layout | None:
    def image_of(mask: str) -> str:
        above, _, file = mask.rpartition("/")
        return f"{above.removesuffix('annot')}/{file}"

    def is_annot(name: str) -> bool:
        folder = _folder(name)
        return _is_mask(name) and folder.endswith("annot") and folder.removesuffix("annot").lower() in SPLIT_WORDS

    masks = [name for name in names if is_annot(name)]
    if not masks:
        return None
    return _match("annot folders", "as in train and trainannot", names, masks, image_of)


def _mask_folders(files: Files, names: Sequence[str]) -> Layout | None:
    def image_of(mask: str) -> str:
        parts = mask.split("/")
        last = max(n for n, part in enumerate(parts[:-1]) if part == "masks")
        return "/".join([*parts[:last], "images", *parts[last + 1 :]])

    masks = [name for name in names if _is_mask(name) and "masks" in name.split("/")[:-1]]
    folders = {folder for name in names for folder in name.split("/")[:-1]}
    if not masks or "images" not in folders:
        return None
    return _match("mask folders", "as in images and masks", names, masks, image_of)


def _match(
    format: str, words: str, names: Sequence[str], masks: Sequence[str], image_of: Callable[[str], str]
) -> Layout:
    """Each mask with the image of the name that `image_of` gives, whatever its ending."""
    images = {_without_ending(name): name for name in reversed(names) if _is_image(name)}
    wanted = {_without_ending(image_of(mask)): mask for mask in masks}
    pairs = [Pair(images[key], mask, _split(images[key])) for key, mask in wanted.items() if key in images]
    problems = [
        Problem(mask, f"has no image; expected {key}.jpg, .png or another image")
        for key, mask in wanted.items()
        if key not in images
    ]
    folders = {key.rpartition("/")[0] for key in wanted}
    problems += [
        Problem(name, "has no mask")
        for key, name in sorted(images.items())
        if key.rpartition("/")[0] in folders and key not in wanted
    ]
    if not all(pair.split for pair in pairs):
        pairs = [pair._replace(split="") for pair in pairs]
    return Layout(format, f"it has {len(masks)} masks beside their images, {words}", pairs, problems)


def read_classes(files: Files) -> Mapping[str, tuple[int, int, int] | None]:
    """The names in `classes.txt`, the uppermost of that name, and their colours where it has them; without it none.

    A line is a name, and behind it three numbers for red, green and blue, with spaces or commas between them.
    """
    there = [name for name in files.names()[0] if name.rsplit("/", 1)[-1] == "classes.txt"]
    if not there:
        return {}
    with files.open(min(there, key=lambda name: (name.count("/"), name))) as file:
        lines = file.read().decode("utf-8").splitlines()
    found: dict[str, tuple[int, int, int] | None] = {}
    for line in filter(None, map(str.strip, lines)):
        words = line.replace(",", " ").split()
        levels = [int(word) for word in words[-3:] if word.isdecimal() and int(word) < 256]
        if len(words) > 3 and len(levels) == 3:
            found[" ".join(words[:-3])] = (levels[0], levels[1], levels[2])
        else:
            found[line] = None
    return found


def _split(name: str) -> str:
    return next((SPLIT_WORDS[part.lower()] for part in name.split("/")[:-1] if part.lower() in SPLIT_WORDS), "")


def _is_mask(name: str) -> bool:
    return ending_of(name) == ".png"


def _is_image(name: str) -> bool:
    return ending_of(name) in IMAGES


def _folder(name: str) -> str:
    return name.split("/")[-2] if "/" in name else ""


def _without_ending(name: str) -> str:
    return name[: len(name) - len(ending_of(name))]


def _stem(name: str) -> str:
    return _without_ending(name.rsplit("/", 1)[-1])
