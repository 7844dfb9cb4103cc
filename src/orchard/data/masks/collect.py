"""From pairs of files to a set: look at every image and mask, settle what is wrong, split, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from orchard.data.collect import places_of_splits, settle
from orchard.data.contracts import Problem
from orchard.data.files import Files, Seen, look_at_all, read_picture
from orchard.data.masks.colours import voc_colour
from orchard.data.masks.contracts import IGNORED, Colour, MaskData, MaskRecord, MaskSplit
from orchard.data.masks.layouts import Layout, Pair
from orchard.data.masks.reading import LEVELS, SeenMask, look_at_mask, read_mask
from orchard.data.pictures import naming
from orchard.data.settings import DataSettings
from orchard.errors import OrchardError


class FileMasks(MaskSplit):
    """Images and masks in files, decoded when they are needed."""

    def __init__(
        self,
        files: Files,
        pairs: Sequence[Pair],
        counts: np.ndarray,
        numbers: np.ndarray,
        channels: int,
        digests: Sequence[bytes],
    ):
        """`counts` (K,) are the pixels of each class, `numbers` (256,) the class that each number in a file means."""
        self.files, self.pairs, self.counts, self.channels = files, list(pairs), counts, channels
        self.numbers, self.digests = numbers, list(digests)

    def __len__(self) -> int:
        return len(self.pairs)

    def record(self, index: int) -> MaskRecord:
        pair = self.pairs[index]
        image = read_picture(self.files, pair.image, self.channels)
        with naming(str(self.files.path / pair.mask)):
            mask = self.numbers[read_mask(self.files, pair.mask)]
        return MaskRecord(image, torch.from_numpy(mask), self.key(index))

    def key(self, index: int) -> str:
        return str(self.files.path / self.pairs[index].image)

    def pixels(self) -> np.ndarray:
        return self.counts


@dataclass(frozen=True)
class Numbering:
    """Which number in a file is which class."""

    kept: tuple[int, ...]  # the numbers of the classes, in their order
    ignored: frozenset[int]

    def table(self) -> np.ndarray:
        """The class of each number, (256,) uint8, or IGNORED."""
        table = np.full(LEVELS, IGNORED, np.uint8)
        table[list(self.kept)] = np.arange(len(self.kept))
        return table


def collect(
    source: str,
    files: Files,
    layout: Layout,
    names: Mapping[str, Colour | None],
    settings: DataSettings,
    ignore_index: int | None,
) -> MaskData:
    """Make a set of what was found. `names` are those of the numbers from 0 on; without any, numbers are the names.

    Raises OrchardError where it cannot be a set, and for images and masks that are not right, unless `bad_records` is
    "skip"; then they are left out and listed.
    """
    pairs, problems = layout.pairs, list[Problem]()
    mend = "mend or remove them"
    settle(layout.problems, "are without a mask, or masks without one", mend, settings, problems, _total(layout))
    images = look_at_all(files, [pair.image for pair in pairs], thorough=settings.bad_records == "skip")
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(partial(look_at_mask, files), [pair.mask for pair in pairs]))
    seen_masks = [mask for mask in masks if isinstance(mask, SeenMask)]
    numbering = number_classes(seen_masks, len(names), ignore_index, source)
    bad: list[Problem] = []
    good: list[tuple[Pair, Seen, SeenMask]] = []
    for pair, image, mask in zip(pairs, images, masks, strict=True):
        if isinstance(image, str):
            bad.append(Problem(pair.image, image))
        elif isinstance(mask, str):
            bad.append(Problem(pair.mask, mask))
        elif wrong := _wrong(pair, image, mask, numbering):
            bad.append(Problem(pair.mask, wrong))
        else:
            good.append((pair, image, mask))
    settle(bad, "or their masks are not right", mend, settings, problems, len(pairs))
    if not good:
        raise OrchardError(f"{source} has no image with a mask that can be read")
    words, colours = list(names) or list(map(str, range(LEVELS))), list(names.values()) or [None] * LEVELS
    classes = tuple(words[number] for number in numbering.kept)
    channels = 1 if all(seen.grey for _, seen, _ in good) else 3
    splits: dict[str, FileMasks] = {}
    mark = hashlib.sha256("\0".join(classes).encode())
    given, digests = [pair.split for pair, _, _ in good], [seen.digest for _, seen, _ in good]
    for split, places in places_of_splits(given, np.zeros(len(good), np.int64), digests, settings).items():
        chosen = [good[place] for place in places]
        counts = np.sum([mask.counts for _, _, mask in chosen], axis=0)[list(numbering.kept)]
        marks = [seen.digest for _, seen, _ in chosen]
        splits[split] = FileMasks(files, [pair for pair, _, _ in chosen], counts, numbering.table(), channels, marks)
        for pair, seen, mask in chosen:
            mark.update(f"\n{split}\0{pair.image}\0".encode(errors="surrogatepass") + seen.digest + mask.digest)
    return MaskData(
        "masks", source, layout.format, layout.reason, classes,
        tuple(colours[number] or voc_colour(number) for number in numbering.kept), channels, splits, mark.hexdigest(),
        tuple(problems),
    )  # fmt: skip


def number_classes(masks: Sequence[SeenMask], named: int, ignore_index: int | None, source: str) -> Numbering:
    """The classes are all numbers that have a name, else all up to the largest in the masks, without what is ignored.

    Raises OrchardError where that leaves one class.
    """
    ignored = frozenset({IGNORED} if ignore_index is None else {IGNORED, ignore_index})
    found = np.sum([mask.counts for mask in masks], axis=0) if masks else np.zeros(LEVELS)
    largest = max((int(number) for number in np.flatnonzero(found) if number not in ignored), default=0)
    kept = tuple(number for number in range(named or largest + 1) if number not in ignored)
    if len(kept) < 2 and masks:
        left_out = ", ".join(map(str, sorted(ignored)))
        raise OrchardError(
            f"{source}: its masks have one class alone, as {left_out} is ignored; expected classes numbered 0, 1, ..."
        )
    return Numbering(kept, ignored)


def _wrong(pair: Pair, image: Seen, mask: SeenMask, numbering: Numbering) -> str:
    """What is wrong with a mask that can be read; empty where nothing is."""
    if (image.width, image.height) != (mask.width, mask.height):
        return f"is {mask.width}x{mask.height}, its image {pair.image} is {image.width}x{image.height}"
    known = {*numbering.kept, *numbering.ignored}
    strange = [number for number in np.flatnonzero(mask.counts).tolist() if number not in known]
    if strange:
        count, span = int(mask.counts[strange[0]]), f"{numbering.kept[0]} to {numbering.kept[-1]}"
        return f"has {count:,} pixels of {strange[0]}; the classes are {span} (set data.ignore_index for what is none)"
    return ""


def _total(layout: Layout) -> int:
    return len(layout.pairs) + len(layout.problems)
