"""A training split with only a few labelled images of each class."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
from PIL import Image
from torch import Tensor

from orchard.data.contracts import ImageData, ImageSplit
from orchard.data.counter_rng import uniforms
from orchard.data.digests import digests_of
from orchard.errors import UsageError


class PartSplit(ImageSplit):
    """Some records of another split, by their places in it."""

    def __init__(self, split: ImageSplit, places: np.ndarray):
        self.split, self.places = split, places
        self.labels, self.small = split.labels[places], split.small

    def image(self, index: int) -> Tensor:
        return self.split.image(int(self.places[index]))

    def open(self, index: int) -> AbstractContextManager[Image.Image]:
        return self.split.open(int(self.places[index]))

    def key(self, index: int) -> str:
        return self.split.key(int(self.places[index]))


@digests_of.register
def _(split: PartSplit) -> np.ndarray:
    found: np.ndarray = digests_of(split.split)
    return found[split.places] if len(found) else found


def few_labels(data: ImageData, count: int | None, seed: int) -> ImageData:
    """The same set with `count` training images of each class (all of a class that has fewer), chosen by `seed`, in
    their order; None: the set as it is. Validation and test stay whole."""
    if count is None:
        return data
    if data.target != "class":
        raise UsageError("data.labels_per_class takes images of each class, where an image has one; leave it out")
    train = data.splits["train"]
    chance = uniforms(seed, 0, np.arange(len(train)), 1)[:, 0]
    chosen = [np.flatnonzero(train.labels == label) for label in range(len(data.classes))]
    places = np.sort(np.concatenate([places[np.argsort(chance[places])[:count]] for places in chosen]))
    mark = hashlib.sha256(data.fingerprint.encode() + places.astype("<i8").tobytes()).hexdigest()
    return replace(data, splits={**data.splits, "train": PartSplit(train, places)}, fingerprint=mark)
