"""Images with classes in Python objects: data sets of torch and Hugging Face, lists of pairs, frames of paths.

Every item is read once, for the digest of its pixels: by their content records are split, a run knows its data again,
and settings tell one object from another. Small images of one size are kept; others are read again when needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data.collect import collect, places_of_splits, settle_labels
from orchard.data.contracts import DataSettings, ImageData, ImageSplit, Problem
from orchard.data.files import Folder
from orchard.data.object_labels import name_classes, read_label
from orchard.data.objects import column, frame_rows, innermost, is_frame, name_of, parts_of, require_records
from orchard.data.pictures import GREY_MODES, as_picture, plain
from orchard.data.splits import ArraySplit, fingerprint
from orchard.data.table import read_rows
from orchard.data.targets import Raw, choose_target
from orchard.errors import OrchardError, UsageError, first_line
from orchard.given import DATA, Given, source_of

IMAGES, LABELS = ("image", "img", "picture"), ("label", "labels", "class", "category", "target")
SMALL = 64  # pixels a side up to which images are kept, as `ImageSplit.small` says
KEPT_BYTES = 512 * 2**20
READ_TWICE = 8  # items, to find those that are another image each time


@dataclass(frozen=True)
class Part:
    """The items of one split: labels as names of classes, one or several each, or as numbers, and of each image its
    digest, size and pixels if kept."""

    data: Any
    name: str
    labels: list[Raw]
    digests: list[bytes]
    sizes: np.ndarray  # (N, 2) heights and widths
    grey: bool
    pixels: np.ndarray | None  # (N, C, H, W) uint8


@dataclass(frozen=True)
class Items:
    """A data set of items, looked at."""

    parts: Mapping[str, Part]
    classes: tuple[str, ...]  # in the order of its own numbers; empty where it does not name them


@dataclass(frozen=True)
class Rows:
    """A frame of paths and labels, or one for each split: the header of each, and its rows as text."""

    name: str
    parts: Mapping[str, tuple[list[str], list[tuple[str, list[str]]]]]


def take_images(data: Any) -> Given:
    """Look at a Python object. Raises UsageError for what is no set of images with labels, OrchardError that names the
    item which is not right."""
    if isinstance(data, Given):
        return data
    parts = parts_of(data)
    name = name_of(parts.get("train", next(iter(parts.values()))))
    digest = hashlib.sha256()
    if all(map(is_frame, parts.values())):
        rows = Rows(name, {split: (header, list(lines)) for split, (header, lines) in
                           ((split, frame_rows(frame)) for split, frame in parts.items())})  # fmt: skip
        plain = {split: ([name.lower() for name in header], lines) for split, (header, lines) in rows.parts.items()}
        digest.update(repr(sorted(plain.items())).encode(errors="surrogatepass"))
        return Given(source_of(DATA, name, digest.hexdigest()), rows)
    found, known = {}, None
    for split, part in parts.items():
        words = f"{name}/{split}" if split else name
        require_records(part, words)
        classes = _class_names(part)
        if known is not None and classes != known:
            raise UsageError(f"{words} has other class names than the splits before it")
        known = classes
        found[split] = _read(part, words, classes)
        for label, mark in zip(found[split].labels, found[split].digests, strict=True):
            digest.update(f"\n{split}\0{label}\0".encode(errors="surrogatepass") + mark)
    digest.update("\0".join(known or ()).encode(errors="surrogatepass"))
    return Given(source_of(DATA, name, digest.hexdigest()), Items(found, known or ()))


def _class_names(data: Any) -> tuple[str, ...]:
    """The names that a data set gives its numbers: features of Hugging Face, `classes` of torchvision."""
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):
        feature = features[column(features, LABELS, "label")]
        return tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())  # of a list, its element's
    classes = getattr(innermost(data), "classes", None)
    return tuple(map(str, classes)) if isinstance(classes, list | tuple) else ()


def _read(data: Any, name: str, classes: Sequence[str]) -> Part:
    """Every item once, the first few of them twice."""
    labels, digests, sizes, kept = [], [], [], []
    shape: tuple[int, ...] | None = None  # of all images so far, where they are kept
    channels, grey, size = 0, True, 0
    for index in range(len(data)):
        key = f"{name}[{index}]"
        image, label = _item(data, index, key)
        pixels = _pixels(image, key)
        if index < READ_TWICE and not np.array_equal(pixels, _pixels(_item(data, index, key)[0], key)):
            raise OrchardError(
                f"{key} is another image each time it is read; leave random transforms out of the data set: settings "
                "of the group 'augmentation' vary the images"
            )
        if not isinstance(image, Image.Image):
            if channels not in (0, len(pixels)):
                raise OrchardError(f"{key}: its image has {len(pixels)} channels, those before it have {channels}")
            channels = len(pixels)
        labels.append(read_label(label, classes, key))
        digests.append(hashlib.sha256(pixels.tobytes()).digest())
        sizes.append(pixels.shape[1:])
        grey, size = grey and len(pixels) == 1, size + pixels.nbytes
        shape = pixels.shape if index == 0 or shape == pixels.shape else None
        if shape and max(shape[1:]) <= SMALL and size <= KEPT_BYTES:
            kept.append(pixels)
        else:
            shape, kept = None, []
    named = name_classes(labels, classes, name)
    return Part(data, name, named, digests, np.array(sizes, np.int32), grey, np.stack(kept) if shape else None)


def _item(data: Any, index: int, key: str) -> tuple[Any, Any]:
    """Image and label of one item; what goes wrong in the data set's own code is said with the item's number."""
    try:
        item = data[index]
    except Exception as error:
        raise OrchardError(f"{key} cannot be read: {type(error).__name__}: {first_line(error)}") from error
    if isinstance(item, Mapping):
        try:
            return item[column(item, IMAGES, "image")], item[column(item, LABELS, "label")]
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
    if not isinstance(item, tuple | list) or len(item) != 2:
        what = f"{type(item).__name__} of {len(item)}" if hasattr(item, "__len__") else type(item).__name__
        raise OrchardError(f"{key} is a {what}; expected (image, label), or a dict with image and label")
    return item[0], item[1]


def _pixels(image: Any, key: str) -> np.ndarray:
    """(C, H, W) uint8, C 1 or 3."""
    try:
        picture = as_picture(image)
        pixels = np.asarray(plain(picture, 1 if picture.mode in GREY_MODES else 3))
    except (ValueError, OSError) as error:
        raise OrchardError(f"{key}: {first_line(error)}") from None
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ObjectSplit(ImageSplit):
    """Items of a data set, read from it when they are needed."""

    def __init__(self, part: Part, places: np.ndarray, labels: np.ndarray):
        self.part, self.places, self.labels = part, places, labels
        self.digests = [part.digests[place] for place in places]
        self.small = int(part.sizes[places].max()) <= SMALL

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        image, _ = _item(self.part.data, int(self.places[index]), self.key(index))
        try:
            yield as_picture(image)
        except (ValueError, OSError) as error:
            raise OrchardError(f"{self.key(index)}: {first_line(error)}") from None

    def image(self, index: int) -> Tensor:
        key = self.key(index)
        return torch.from_numpy(_pixels(_item(self.part.data, int(self.places[index]), key)[0], key).copy())

    def key(self, index: int) -> str:
        return f"{self.part.name}/{self.places[index]}"


def open_images(given: Given, settings: DataSettings) -> ImageData:
    """The set of an object that was looked at; splits that it lacks are made, by the content of the images.

    Raises OrchardError for what cannot be learned from.
    """
    if isinstance(given.content, Rows):
        return _open_rows(given.source, given.content, settings)
    items: Items = given.content
    records = [(split, place) for split, part in items.parts.items() for place in range(len(part.labels))]
    raws = [items.parts[split].labels[place] for split, place in records]
    keys = [f"{items.parts[split].name}[{place}]" for split, place in records]
    problems: list[Problem] = []
    kind, how = choose_target(given.source, raws, settings, known=items.classes)
    nothing = (", only {}", "")
    taken, labels, classes = settle_labels(
        given.source, kind, keys, raws, [split for split, _ in records], settings, problems, nothing
    )
    records = [records[place] for place in taken]
    digests = [items.parts[split].digests[place] for split, place in records]
    wanted, within = [split for split, _ in records], np.array([place for _, place in records])
    splits, contents = {}, []
    for split, at in places_of_splits(wanted, kind.strata(labels), digests, settings).items():
        splits[split] = _split(items.parts[wanted[at[0]]], within[at], labels[at])
        contents += [(split, splits[split].key(n), labels[p], digests[p]) for n, p in enumerate(at)]
    channels = 1 if all(part.grey for part in items.parts.values()) else 3
    reason = f"it is a Python object with an image and a label in each of its items{how}"
    return ImageData(
        "images", given.source, "Python object", reason, classes, channels, splits,
        fingerprint(contents, classes), tuple(problems), kind.target,
    )  # fmt: skip


def _split(part: Part, places: np.ndarray, labels: np.ndarray) -> ImageSplit:
    if part.pixels is None:
        return ObjectSplit(part, places, labels)
    return ArraySplit(part.name, part.pixels[places], labels, places)


def _open_rows(source: str, rows: Rows, settings: DataSettings) -> ImageData:
    """As a table in a file is read; paths are relative to the working directory."""
    tables = []
    for split, (header, lines) in rows.parts.items():
        table = read_rows(f"{rows.name} ({split})" if split else rows.name, header, lines, settings)
        tables.append(replace(table, records=[replace(r, split=split or r.split) for r in table.records]))
    first = tables[0]
    if any((table.columns, table.column) != (first.columns, first.column) for table in tables):
        raise OrchardError(f"{rows.name} has its labels in other columns than the splits before it")
    whole = replace(
        first, records=[r for t in tables for r in t.records], problems=[p for t in tables for p in t.problems]
    )
    if not whole.records:
        raise OrchardError(f"{rows.name} is empty: it has no row")
    reason = "it is a frame whose columns are named path and label"
    return collect(whole.found(source, "frame", reason, Folder(Path())), settings)
