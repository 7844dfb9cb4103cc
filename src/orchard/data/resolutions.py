"""Images at high resolution and the same at low resolution, as super-resolution learns them.

Low resolution is made by Pillow's bicubic resizing with antialiasing, which is MATLAB's `imresize` but for the border
and for rounding to 8 bits between its two passes. Where a folder `HR` has a folder `LRx4` beside it with images of the
same names, those are taken for a scale of 4.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from orchard.data.captions import CaptionSettings
from orchard.data.captions.contracts import zeros
from orchard.data.checked import Checked
from orchard.data.collect import settle
from orchard.data.contracts import ImageData, ImageSplit, Problem
from orchard.data.files import Archive, Files, FileSplit, Folder, Seen, look_at_all, reading
from orchard.data.pictures import GREY_MODES, plain
from orchard.data.unlabelled import collect_pictures, open_pictures
from orchard.data.walk import IMAGES, ending_of
from orchard.errors import OrchardError
from orchard.given import Given

HIGH = "HR"
LOW = re.compile(r"(?:^|/)LRx(\d{1,3})(?=/|$)")
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def shrink(image: Image.Image, scale: int, box: Box | None = None) -> Image.Image:
    """A `scale`-th of the height and width, which are multiples of it; or a part of that, `box` in its pixels.

    A part is what the whole would have there: Pillow looks beyond the box.
    """
    left, top, right, bottom = box or (0, 0, image.width // scale, image.height // scale)
    of = (left * scale, top * scale, right * scale, bottom * scale)
    return image.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=of)


def enlarge(image: Image.Image, scale: int, box: Box | None = None) -> Image.Image:
    """`scale` times the height and width; or of a part alone, `box` in the image's own pixels."""
    left, top, right, bottom = box or (0, 0, *image.size)
    size = ((right - left) * scale, (bottom - top) * scale)
    return image.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))


@dataclass(frozen=True)
class Resolutions:
    """One split: images at high resolution in a fixed order, and their stored low resolutions by scale."""

    images: ImageSplit
    low: Mapping[int, FileSplit] = dataclasses.field(default_factory=dict)
    references: Sequence[tuple[ImageSplit, int]] = ()  # of each image the split and index of another (references.py)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, index: int) -> str:
        return self.images.key(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels."""
        return _size(self.images, index)

    def high(self, index: int, scale: int) -> Image.Image:
        """The image in mode L or RGB, its lower and right edge cut to a multiple of `scale`."""
        return _whole(self.images, index, scale)

    def pair(self, index: int, scale: int) -> tuple[Image.Image, Image.Image]:
        """Low and high resolution, in one mode. Raises OrchardError that names a file it cannot read."""
        high = self.high(index, scale)
        return self.stored(index, scale, high) or shrink(high, scale), high

    def reference(self, index: int) -> Image.Image | None:
        """The reference picture of an image, in RGB; None in a set without."""
        return _whole(*self.references[index], 1).convert("RGB") if self.references else None

    def reference_size(self, index: int) -> tuple[int, int]:
        """Its height and width in pixels."""
        return _size(*self.references[index])

    def stored(self, index: int, scale: int, high: Image.Image) -> Image.Image | None:
        """The low resolution in a file, in the mode of `high`; None where there is none."""
        if scale not in self.low:
            return None
        image = _whole(self.low[scale], index, 1)
        return image if image.mode == high.mode else image.convert(high.mode)


def _size(split: ImageSplit, index: int) -> tuple[int, int]:
    """Height and width in pixels."""
    if isinstance(split, FileSplit):
        height, width = split.sizes[index].tolist()
    else:
        with split.open(index) as picture:
            width, height = picture.size
    return height, width


def _whole(split: ImageSplit, index: int, multiple: int) -> Image.Image:
    with split.open(index) as picture:
        image = plain(picture, 1 if picture.mode in GREY_MODES else 3)
        return image.crop((0, 0, image.width - image.width % multiple, image.height - image.height % multiple))


@dataclass(frozen=True)
class ResolutionData:
    """A whole set: what is known of its images, and its splits."""

    images: ImageData
    splits: Mapping[str, Resolutions]


def open_resolutions(source: str | Given, settings: CaptionSettings, scales: Sequence[int]) -> ResolutionData:
    """Images for a model of these scales: pairs in folders HR and LRx4 (at the top, or in train, validation and test),
    else any images (`open_pictures`), whose low resolution is made.

    Raises UsageError or OrchardError as `open_pictures` does, and for pairs that do not go together.
    """
    if not isinstance(source, Given):
        with reading(source):
            files = files_of(source)
            names = files.names()[0] if files is not None else []
            if files is not None and (scales_there := stored_scales(names)):
                return _pairs(source, files, names, settings, [scale for scale in scales if scale in scales_there])
    images = open_pictures(source, settings)
    return ResolutionData(images, {name: Resolutions(split) for name, split in images.splits.items()})


def files_of(source: str) -> Files | None:
    """The files of a folder or a zip archive; None for what is neither."""
    path = Path(source).expanduser()
    if path.is_dir():
        return Folder(path)
    return Archive(path) if path.suffix.lower() == ".zip" and path.is_file() else None


def low_name(name: str, scale: int) -> str:
    """Where the low resolution of an image in a folder HR is; empty for one that is in none."""
    *folders, last = name.split("/")
    if HIGH not in folders:
        return ""
    folders[len(folders) - 1 - folders[::-1].index(HIGH)] = f"LRx{scale}"
    return "/".join([*folders, last])


def stored_scales(names: Sequence[str]) -> set[int]:
    """The scales whose folders LRx4 stand beside a folder HR."""
    folders = {name.rpartition("/")[0] for name in names}
    scales = {int(found) for folder in folders for found in LOW.findall(folder)}
    high = [name for name in names if low_name(name, 1)]
    return {scale for scale in scales if any(low_name(name, scale).rpartition("/")[0] in folders for name in high)}


def _pairs(
    source: str, files: Files, names: Sequence[str], settings: CaptionSettings, scales: Sequence[int]
) -> ResolutionData:
    """A set of pairs; of scales that have no folder the low resolution is made."""
    high = [name for name in names if low_name(name, 1) and ending_of(name) in IMAGES]
    thorough = settings.bad_records == "skip"
    sizes = dict(zip(high, look_at_all(files, high, thorough=False), strict=True))
    looks: dict[str, Seen | str] = {}
    bad = []
    for scale in scales:
        low = [low_name(name, scale) for name in high]
        looks |= dict(zip(low, look_at_all(files, low, thorough), strict=True))
        bad += [
            Problem(name, said)
            for name, beside in zip(high, low, strict=True)
            if (said := _unfit(sizes[name], looks[beside], beside, scale))
        ]
    problems: list[Problem] = []
    settle(bad, "do not go with their low resolution", "mend or remove them", settings, problems, len(high))
    left_out = {problem.key for problem in problems}
    good = [name for name in high if name not in left_out]
    images = collect_pictures(source, files, good, settings)
    splits = {}
    for split, data in images.splits.items():
        assert isinstance(data, FileSplit)
        low_of = {scale: [low_name(name, scale) for name in data.names] for scale in scales}
        splits[split] = Resolutions(
            data,
            {
                scale: FileSplit(files, low, zeros(len(low)), [_seen(looks[name]) for name in low])
                for scale, low in low_of.items()
            },
        )
    digest = hashlib.sha256(images.fingerprint.encode())
    for pair in splits.values():
        for scale, stored in pair.low.items():
            digest.update(f"x{scale}".encode() + b"".join(stored.digests))
    words = " and ".join(f"LRx{scale}" for scale in scales)
    reason = f"it has folders {HIGH}" + (f" and {words}" if scales else ", and none for this scale beside them")
    images = dataclasses.replace(
        images, format="image pairs", reason=reason, fingerprint=digest.hexdigest(),
        problems=(*problems, *images.problems),
    )  # fmt: skip
    return ResolutionData(images, splits)


def _seen(look: Seen | str) -> Seen:
    assert isinstance(look, Seen), "what cannot be read was settled before"
    return look


def _unfit(high: Seen | str, low: Seen | str, name: str, scale: int) -> str:
    """What is wrong with the low resolution of an image; nothing where the image itself cannot be read."""
    if isinstance(high, str):
        return ""
    if isinstance(low, str):
        return f"{name}: {low}"
    wanted = high.width // scale, high.height // scale
    if (low.width, low.height) == wanted:
        return ""
    there, size = f"{low.width}x{low.height}", f"{high.width}x{high.height}"
    return f"{name} is {there}, expected {wanted[0]}x{wanted[1]}, 1/{scale} of {size}"


def recognise(source: str) -> bool:
    """Whether a path that exists holds pairs; what is damaged is for others to say."""
    try:
        files = files_of(source)
        return files is not None and bool(stored_scales(files.names()[0]))
    except (OSError, zipfile.BadZipFile, OrchardError):
        return False


def check_resolutions(source: str, settings: CaptionSettings) -> Checked:
    """Images by split, their sizes, the scales that are stored, and what is wrong with the files."""
    files = files_of(source)
    scales = sorted(stored_scales(files.names()[0])) if files is not None else []
    data = open_resolutions(source, settings.model_copy(update={"bad_records": "skip"}), scales)
    counts = {name: {"images": len(split)} for name, split in data.splits.items()}
    sizes = np.array([split.size(n) for split in data.splits.values() for n in range(len(split))])
    heights, widths = ([int(side.min()), int(np.median(side)), int(side.max())] for side in sizes.T)
    facts = {
        "scales stored": scales,
        "height, pixels (smallest, median, largest)": heights,
        "width, pixels (smallest, median, largest)": widths,
    }
    problems = tuple(f"{one.key}: {one.what}" for one in data.images.problems)
    return Checked(source, data.images.format, data.images.reason, counts, facts, problems, data.images.fingerprint)
