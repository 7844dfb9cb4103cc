"""Splits held in memory, splits that we make ourselves, and the fingerprint of a set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data.contracts import ImageSplit
from orchard.data.counter_rng import uniforms
from orchard.errors import OrchardError


class ArraySplit(ImageSplit):
    """Pictures of one size in memory: (N, C, H, W) uint8 with labels (N,) or (N, K)."""

    def __init__(self, name: str, pictures: np.ndarray, labels: np.ndarray, places: np.ndarray):
        """`places` (N,) are the records' numbers in the set as published, for their names."""
        self.name, self.places = name, places
        self.pictures = torch.from_numpy(np.require(pictures, requirements=["C", "W"]))
        self.labels = stored(labels)
        self.small = max(pictures.shape[2:]) <= 64

    def image(self, index: int) -> Tensor:
        return self.pictures[index]

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        pixels = self.pictures[index].numpy()
        yield Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))

    def key(self, index: int) -> str:
        return f"{self.name}/{self.places[index]}"

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(self.pictures[index].numpy().tobytes()).digest()


def hold_out(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places to keep and places to hold out, both sorted: `fraction` of every class, by a seeded permutation.

    Each class keeps at least one record; what rounding leaves over goes to the classes with the largest remainders.
    Raises OrchardError if not one record can be held out.
    """
    order = np.argsort(uniforms(seed, 0, np.arange(len(labels)), 1)[:, 0], kind="stable")
    counts = np.bincount(labels)
    exact = counts * fraction
    quota = np.minimum(np.floor(exact).astype(int), np.maximum(counts - 1, 0))
    missing = max(1, round(len(labels) * fraction)) - quota.sum()
    for label in np.argsort(-(exact - np.floor(exact)), kind="stable"):
        if missing <= 0:
            break
        if quota[label] < counts[label] - 1:
            quota[label] += 1
            missing -= 1
    if quota.sum() == 0:
        raise _too_few(labels)
    held = np.zeros(len(labels), bool)
    for label, count in enumerate(quota):
        held[order[labels[order] == label][:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _too_few(labels: np.ndarray) -> OrchardError:
    classes = len(np.unique(labels))
    of_classes, each = (f" of {classes} classes", "every class needs one") if classes > 1 else ("", "one is needed")
    return OrchardError(
        f"{len(labels)} records{of_classes} are too few to hold some out: {each} to learn from; add more, or "
        "give train and validation splits"
    )


def hold_out_by_content(
    digests: np.ndarray, labels: np.ndarray, fractions: Sequence[float], seed: int
) -> list[np.ndarray]:
    """For each of `fractions` the places held out, sorted: about that share of the records.

    Which a record belongs to is decided by its own digest (N,) int64 alone, so that it stays where it was when others
    are added or removed, and equal records stay together. Only where a class would have nothing to learn from, or a
    part nothing in it, the record that is nearest to it goes there. Raises OrchardError if there is none.
    """
    chance, kept = uniforms(seed, 0, digests, 1)[:, 0], len(fractions)
    part = np.searchsorted(np.cumsum(fractions), chance, side="right")
    for label in np.setdiff1d(labels, labels[part == kept]):
        of_class = labels == label
        part[of_class & (chance == chance[of_class].max())] = kept
    for number, fraction in enumerate(fractions):
        if fraction and not (part == number).any():
            left = np.bincount(labels[part == kept], minlength=int(labels.max()) + 1)
            free = np.flatnonzero((part == kept) & (left[labels] > 1))
            if not len(free):
                raise _too_few(labels)
            part[free[chance[free].argmin()]] = number
    return [np.flatnonzero(part == number) for number in range(kept)]


class AllBut:
    """The numbers 0 .. count - 1 without some, by place, in the memory of those alone that are left out."""

    def __init__(self, count: int, without: np.ndarray):
        """`without` (K,) int64, sorted."""
        self.count = count - len(without)
        self.without = without
        self.below = without - np.arange(len(without))  # how many numbers that stay stand before each one left out

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> int:
        return place + int(np.searchsorted(self.below, place, side="right"))


def stored(labels: np.ndarray) -> np.ndarray:
    """Labels as a split has them: (N,) int64 or (N, K) float32."""
    return labels.astype(np.int64 if labels.ndim == 1 else np.float32)


def fingerprint(records: Iterable[tuple[str, str, Any, bytes]], classes: Sequence[str]) -> str:
    """sha256 over the classes and over every record's split, key, label (a number or several) and content digest."""
    digest = hashlib.sha256("\0".join(classes).encode(errors="surrogatepass"))
    for split, key, label, content in records:
        label = label.tolist() if isinstance(label, np.ndarray | np.generic) else label
        digest.update(f"\n{split}\0{key}\0{label}\0".encode(errors="surrogatepass") + content)
    return digest.hexdigest()


def array_fingerprint(splits: Mapping[str, ArraySplit], classes: Sequence[str]) -> str:
    """The fingerprint of a set in memory, each split hashed as a whole."""
    contents = (
        (split, data.name, len(data), hashlib.sha256(data.pictures.numpy().tobytes() + data.labels.tobytes()).digest())
        for split, data in splits.items()
    )
    return fingerprint(contents, classes)
