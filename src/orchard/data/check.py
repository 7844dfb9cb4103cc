"""What a set holds, what is wrong with it, and a picture of what a model will see of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data.characters import are_characters, mirrored_characters, named
from orchard.data.contracts import AugmentSettings, ImageData, ImageSplit, Preprocess, Problem
from orchard.data.few_labels import PartSplit
from orchard.data.files import FileSplit
from orchard.data.loader import Loader
from orchard.data.settings import DataSettings, Target
from orchard.data.sources import open_data
from orchard.data.splits import ArraySplit
from orchard.files import atomic

_VARIANTS = 4  # how often the mosaic shows each picture as in training
_LOOKED_AT = 256  # images whose borders are
_BRIGHT = 200  # of 255: a border that is paper, or a plain ground, and no photograph's
_GAP = 4  # pixels between pictures of the mosaic


@dataclass(frozen=True)
class Duplicate:
    """Records with the same content: where they are, and whether they differ in split or label."""

    keys: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """Everything `orchard data check` says."""

    source: str
    format: str
    reason: str
    channels: int
    target: Target
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]  # split → class (or number) → pictures
    numbers: Mapping[str, Mapping[str, tuple[float, float, float]]]  # split → number → smallest, median, largest
    widths: tuple[int, int, int]  # smallest, median, largest, in pixels
    heights: tuple[int, int, int]
    imbalance: float | None  # pictures of the largest training class over those of the smallest; of numbers none
    problems: tuple[Problem, ...]
    duplicates: tuple[Duplicate, ...]
    fingerprint: str

    @property
    def ok(self) -> bool:
        """Nothing unreadable, nothing strange, and no picture in two splits or with two labels."""
        return not self.problems and not any(len(d.splits) > 1 or len(d.labels) > 1 for d in self.duplicates)

    def to_json(self) -> dict[str, object]:
        return {"ok": self.ok, **asdict(self)}


def check(
    source: str, settings: DataSettings, opened: Callable[[str, Any], ImageData] = open_data
) -> tuple[ImageData, Check]:
    """Open a set, decoding every picture once, and gather what there is to say; bad records are listed, not refused.

    `opened` is what opens it: `open_with_classes` where pictures without classes are a set, too.

    Raises UsageError or OrchardError for what is no set at all.
    """
    data = opened(source, settings.model_copy(update={"bad_records": "skip"}))
    counts = {split: data.kind.counts(s.labels, data.classes) for split, s in data.splits.items()}
    of_numbers = data.target == "number"
    sizes = np.concatenate([_sizes(split) for split in data.splits.values()])
    training = list(counts["train"].values())
    heights, widths = ((int(side.min()), int(np.median(side)), int(side.max())) for side in sizes.T)
    result = Check(
        source, data.format, data.reason, data.channels, data.target, data.classes, counts,
        _ranges(data) if of_numbers else {}, widths, heights,
        None if of_numbers else round(max(training) / max(min(training), 1), 2), data.problems,
        _duplicates(data), data.fingerprint,
    )  # fmt: skip
    return data, result


def _ranges(data: ImageData) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Smallest, median and largest of each number in each split."""
    found = {}
    for name, split in data.splits.items():
        low, middle, high = np.percentile(split.labels, [0, 50, 100], axis=0).tolist()
        found[name] = dict(zip(data.classes, zip(low, middle, high, strict=True), strict=True))
    return found


def _sizes(split: ImageSplit) -> np.ndarray:
    """(N, 2) heights and widths."""
    if isinstance(split, FileSplit):
        return split.sizes
    return np.array([split.image(index).shape[1:] for index in range(len(split))])


def _duplicates(data: ImageData) -> tuple[Duplicate, ...]:
    """Groups of records whose content has the same digest, those across splits first, then those with two labels."""
    places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for name, split in data.splits.items():
        for index in range(len(split)):
            places[_digest(split, index)].append((name, index))
    found = []
    for group in places.values():
        if len(group) > 1:
            keys = tuple(data.splits[name].key(index) for name, index in group)
            labels = {data.kind.words(data.splits[name].labels[index], data.classes) for name, index in group}
            found.append(Duplicate(keys, tuple(sorted({name for name, _ in group})), tuple(sorted(labels))))
    return tuple(sorted(found, key=lambda d: (-len(d.splits), -len(d.labels), d.keys)))


def _digest(split: ImageSplit, index: int) -> bytes:
    if isinstance(split, FileSplit):
        return split.digests[index]
    assert isinstance(split, ArraySplit)
    return split.digest(index)


def remarks(data: ImageData, augment: AugmentSettings, known: bool) -> list[str]:
    """What augmentation should mind in this set, a line each. `known`: it is a recipe's, else there is none yet."""
    classes = data.characters
    found = mirrored_characters(augment, classes)
    if not found and not known and are_characters(classes):
        found = [f"the classes are characters ({named(classes)}); leave augmentation.flip off"]
    moves = augment.rotate or augment.scale or augment.shift or (augment.crop == "pad" and augment.pad)
    if augment.padding == "zero" and (moves or not known) and (bright := _bright_borders(data.splits["train"])):
        found.append(
            f"the borders of most images are bright (median {bright} of 255), and what moves in at them is black; "
            "--set augmentation.padding=edge continues the image"
        )
    return found


def _bright_borders(split: ImageSplit) -> int:
    """The median level of the outermost pixels where that of most images is near white, else 0."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(len(split), _LOOKED_AT)).astype(int))
    levels = []
    for index in chosen:
        pixels = split.image(int(index)).numpy()
        edges = (pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1])
        levels.append(np.median(np.concatenate(edges, 1)))
    return int(np.median(levels)) if np.mean(np.array(levels) >= _BRIGHT) > 0.5 else 0


def draw_mosaic(
    data: ImageData, preprocess: Preprocess, augment: AugmentSettings, path: Path, *, pictures: int = 12, seed: int = 0
) -> None:
    """Write a PNG of training pictures as a model sees them, classes in turn.

    Two pictures stand in a row: each first as in evaluation, then, to the right of it, as training varies it.
    """
    split = data.splits["train"]
    by_class = data.kind.groups(split.labels, data.classes)
    longest = max(map(len, by_class))
    turns = [
        int(members[turn]) for turn in range(min(longest, pictures)) for members in by_class if turn < len(members)
    ]
    picked = PartSplit(split, np.array(list(dict.fromkeys(turns))[:pictures]))  # of several classes each once
    count = len(picked)
    plain = next(Loader(picked, preprocess, None, batch_size=count, seed=seed, workers=0).batches(0)).images
    columns = [plain]
    varied = Loader(picked, preprocess, augment, batch_size=count, seed=seed, workers=0)
    for epoch in range(_VARIANTS):
        batch = next(varied.batches(epoch))
        columns.append(batch.images[batch.indices.argsort()])
    with atomic(path) as file:
        Image.fromarray(_tile(torch.stack(columns, 1), preprocess)).save(file, format="PNG")


def _tile(pictures: Tensor, preprocess: Preprocess) -> np.ndarray:
    """(N, 1 + _VARIANTS, C, H, W) normalised → (height, width, 3) uint8, small pictures enlarged by whole pixels."""
    mean, std = torch.tensor(preprocess.mean).view(-1, 1, 1), torch.tensor(preprocess.std).view(-1, 1, 1)
    shown = ((pictures * std + mean) * 255).round().clamp(0, 255).byte().expand(-1, -1, 3, -1, -1)
    enlarge = max(1, 96 // preprocess.size[1])
    shown = shown.repeat_interleave(enlarge, 3).repeat_interleave(enlarge, 4)
    count, across, _, height, width = shown.shape
    rows = -(-count // 2)
    apart = 2 * _GAP  # between what evaluation and what training sees, and once more between two pictures of a row
    block = (width + _GAP) * across + 2 * apart
    canvas = np.full((rows * (height + _GAP) + _GAP, 2 * block + _GAP - apart, 3), 255, np.uint8)
    for place in range(count):
        for column in range(across):
            top = _GAP + (place // 2) * (height + _GAP)
            left = _GAP + (place % 2) * block + column * (width + _GAP) + (apart if column else 0)
            canvas[top : top + height, left : left + width] = shown[place, column].permute(1, 2, 0).numpy()
    return canvas


def size_to_show(data: ImageData) -> tuple[int, int]:
    """The picture size (height, width) where no model says one: small pictures as they are, others at 224."""
    sizes = _sizes(data.splits["train"])
    return (int(sizes[:, 0].max()), int(sizes[:, 1].max())) if data.splits["train"].small else (224, 224)
