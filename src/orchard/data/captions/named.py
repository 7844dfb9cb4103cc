"""Named sets of labelled pictures, with captions made from their classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from orchard.data.captions.contracts import CaptionData, CaptionSettings, CaptionSplit, zeros
from orchard.data.captions.templates import fill, wordings
from orchard.data.named import open_named
from orchard.data.splits import ArraySplit
from orchard.errors import UsageError


class NamedSplit(ArraySplit, CaptionSplit):
    """Pictures in memory; every wording gives a record one caption. `classes` (N,) int64 are the classes' numbers."""

    def __init__(self, split: ArraySplit, nouns: Sequence[str], templates: Sequence[str]):
        super().__init__(split.name, split.pictures.numpy(), zeros(len(split)), split.places)
        self.classes = split.labels
        self.captions = [fill(templates, noun) for noun in nouns]

    def texts(self, index: int) -> tuple[str, ...]:
        return self.captions[self.classes[index]]


def open_named_captions(name: str, folder: Path | None, settings: CaptionSettings, source: str) -> CaptionData:
    """One of `templates.WORDINGS`. Training and validation have the wordings to learn from, the test the others.

    Raises UsageError for templates without a place for the class, and as `data.named.open_named` does.
    """
    words = wordings(name, settings.language)
    training = words.training if settings.templates is None else settings.templates
    if not training or not all("{}" in template for template in training):
        raise UsageError("data.templates must be wordings with {} where the class is to stand, such as 'a small {}'")
    data = open_named(name, folder, settings, source)
    splits: dict[str, CaptionSplit] = {}
    for split, pictures in data.splits.items():
        assert isinstance(pictures, ArraySplit)
        templates = words.held_out if split == "test" else training
        splits[split] = NamedSplit(pictures, words.classes, templates)
    said = "\0".join((data.fingerprint, *words.classes, *training, *words.held_out))
    mark = hashlib.sha256(said.encode()).hexdigest()
    reason = data.reason + ", and Orchard has wordings for its classes"
    return CaptionData(name, source, "named set", reason, data.channels, splits, mark)
