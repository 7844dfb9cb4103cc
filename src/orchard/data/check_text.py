"""What a set of pictures with captions, or a text, holds and what is wrong with it."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from orchard.data import text
from orchard.data.captions.contracts import CaptionData, CaptionSettings, CaptionSplit
from orchard.data.captions.fields import picture_fault, split_fields
from orchard.data.captions.listing import is_listing
from orchard.data.captions.sources import open_captions
from orchard.data.captions.tsv import ENDINGS as TABLES
from orchard.data.contracts import DataSettings, Preprocess, Problem
from orchard.data.files import Archive, Files, Folder
from orchard.data.preprocess import fit
from orchard.data.text_files import NAMES as TEXT_COLUMNS
from orchard.data.walk import IMAGES as PICTURES
from orchard.errors import OrchardError
from orchard.files import atomic

Kind = Literal["pictures", "captions", "text"]
KINDS: dict[str, Kind] = {  # what a task learns from, where it has no choice
    "image-classification": "pictures",
    "text-generation": "text",
    "text-to-image": "captions",
    "zero-shot-image-classification": "captions",
}
ALL_COMPARED = 20_000  # pictures up to which every one is compared with all others
_UNDER, _GAP = 28, 6  # pixels of the mosaic for a caption, and between pictures


@dataclass(frozen=True)
class CaptionCheck:
    """What `orchard data check` says of pictures with captions."""

    source: str
    format: str
    reason: str
    channels: int
    counts: Mapping[str, Mapping[str, int]]  # split → "pictures" and "captions"
    widths: tuple[int, int, int]  # smallest, median, largest, in pixels; of a sample where there are many
    heights: tuple[int, int, int]
    lengths: tuple[int, int, int]  # of captions: shortest, median, longest, in characters
    characters: str  # all that occur in captions, in the order of Unicode
    repeated: Mapping[str, int]  # captions that several pictures have, the most frequent first: how many
    duplicates: tuple[tuple[str, ...], ...] | None  # the same picture more than once; none: too many to compare
    leaks: int  # of these, pictures in several splits
    problems: tuple[Problem, ...]
    fingerprint: str

    @property
    def ok(self) -> bool:
        """Nothing unreadable or empty, and no picture in two splits."""
        return not self.problems and not self.leaks

    def to_json(self) -> dict[str, object]:
        return {"kind": "captions", "ok": self.ok, **asdict(self)}


@dataclass(frozen=True)
class TextCheck:
    """What `orchard data check` says of text."""

    source: str
    format: str
    reason: str
    counts: Mapping[str, Mapping[str, int]]  # split → "documents", "lines", "characters", "bytes"
    characters: str  # all that occur, in the order of Unicode
    unlearned: str  # those of validation and test that training never shows
    fingerprint: str
    ok: bool = True  # a text that can be read has nothing wrong with it

    def to_json(self) -> dict[str, object]:
        return {"kind": "text", **asdict(self)}


def kind_of(source: str, settings: DataSettings, task: str | None) -> Kind:
    """What a source is looked at as: what a model's `task` learns from, else what it looks like."""
    if task in KINDS:
        return KINDS[task]
    if source.partition(":")[0] in text.NAMED:
        return "text"
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _kind_inside(Folder(path))
        if path.suffix.lower() == ".zip" and path.is_file():
            return _kind_inside(Archive(path))
        if path.is_file():
            return _kind_of_file(path)
    except (OSError, zipfile.BadZipFile):  # who opens it says what is wrong
        return "pictures"
    several = "*" in source or "," in source
    return "captions" if several and source.lower().endswith(TABLES) else "pictures"


def _kind_inside(files: Files) -> Kind:
    names = files.names()[0]
    if any(is_listing(name) for name in names):
        return "captions"
    if any(Path(name.lower()).suffix in PICTURES for name in names):
        return "pictures"
    if any("/" not in name and name.lower().endswith(TABLES) for name in names):
        return "captions"
    return "text" if any(name.lower().endswith(text.ENDINGS) for name in names) else "pictures"


def _kind_of_file(path: Path) -> Kind:
    name = path.name.lower()
    if is_listing(name) or name.endswith(".tsv.gz"):
        return "captions"
    with path.open("rb") as file:
        lines = [line.rstrip(b"\r\n") for line in islice(iter(lambda: file.readline(2**24), b""), 3)]
    if name.endswith(".tsv"):
        fields = [field for line in lines for field in split_fields(line, 0)]
        return "captions" if any(not picture_fault(field) for field in fields) else "pictures"
    header = (
        {cell.strip().lower() for cell in re.split(rb"[,\t]", lines[0].removeprefix(b"\xef\xbb\xbf"))}
        if lines
        else set()
    )
    names_pictures = any(re.search(rb"\.(?:png|jpe?g|webp|gif|bmp|tiff?)\b", line, re.IGNORECASE) for line in lines)
    columns_of_text = name.endswith(".csv") and not header.isdisjoint(name.encode() for name in TEXT_COLUMNS)
    is_text = name.endswith((*text.ENDINGS, ".jsonl")) or columns_of_text
    return "text" if is_text and not names_pictures else "pictures"


def check_captions(source: str, settings: CaptionSettings) -> tuple[CaptionData, CaptionCheck]:
    """Open a set and gather what there is to say; bad records are listed, not refused."""
    data = open_captions(source, settings.model_copy(update={"bad_records": "skip"}))
    counts: dict[str, dict[str, int]] = {}
    lengths: list[int] = []
    characters: set[str] = set()
    said: dict[str, int] = defaultdict(int)
    for name, split in data.splits.items():
        counts[name] = {"pictures": len(split), "captions": 0}
        for index in range(len(split)):
            texts = split.texts(index)
            counts[name]["captions"] += len(texts)
            for one in texts:
                lengths.append(len(one))
                characters.update(one)
                said[one] += 1
    repeated = dict(sorted(((one, n) for one, n in said.items() if n > 1), key=lambda pair: (-pair[1], pair[0])))
    sizes, places = _look(data.splits)
    whole = sum(map(len, data.splits.values())) <= ALL_COMPARED
    again = [group for group in places.values() if len(group) > 1]
    widths, heights = (_spread([size[axis] for size in sizes]) for axis in (0, 1))
    result = CaptionCheck(
        source, data.format, data.reason, data.channels, counts, widths, heights, _spread(lengths),
        "".join(sorted(characters)), repeated,
        tuple(tuple(key for _, key in group) for group in again) if whole else None,
        sum(len({split for split, _ in group}) > 1 for group in again), data.problems, data.fingerprint,
    )  # fmt: skip
    return data, result


def _look(
    splits: Mapping[str, CaptionSplit],
) -> tuple[list[tuple[int, int]], Mapping[bytes, list[tuple[str, str]]]]:
    """Sizes of pictures, and the splits and names of those with the same pixels; of large sets, an even sample."""
    total = sum(map(len, splits.values()))
    sizes: list[tuple[int, int]] = []
    places: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for name, split in splits.items():
        share = min(1.0, ALL_COMPARED / total)
        for index in np.unique(np.linspace(0, len(split) - 1, max(1, int(len(split) * share))).astype(int)):
            pixels = split.image(int(index)).numpy()
            sizes.append((pixels.shape[2], pixels.shape[1]))
            mark = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
            places[mark].append((name, split.key(int(index))))
    return sizes, places


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), int(np.median(values)), max(values)


def check_text(source: str, settings: DataSettings) -> TextCheck:
    """Read a text and count what is in it."""
    texts = text.open_text(source, settings)
    counts = {
        split: {
            "documents": len(documents),
            "lines": sum(one.count("\n") + (not one.endswith("\n")) for one in documents),
            "characters": sum(map(len, documents)),
            "bytes": sum(len(one.encode()) for one in documents),
        }
        for split, documents in texts.splits.items()
    }
    seen = {split: set().union(*map(set, documents)) for split, documents in texts.splits.items()}
    every = set().union(*seen.values())
    unlearned = "".join(sorted(every - seen["train"]))
    return TextCheck(
        source, texts.format, texts.reason, counts, "".join(sorted(every)), unlearned, texts.fingerprint
    )  # fmt: skip


def draw_captions(data: CaptionData, preprocess: Preprocess, path: Path, *, pictures: int = 12) -> list[str]:
    """Write a PNG of training pictures as a model sees them, numbered; returns their captions in that order.

    A caption of plain letters stands under its picture too: the font that is always at hand has no others.
    """
    split = data.splits["train"]
    assert isinstance(split, CaptionSplit)
    height, width = preprocess.size
    times = max(1, 96 // width)
    side = (max(width * times, 96), height * times)
    columns = min(4, len(split), pictures)
    picked = np.unique(np.linspace(0, len(split) - 1, min(pictures, len(split))).astype(int))
    rows = -(-len(picked) // columns)
    step = (side[0] + _GAP, side[1] + _UNDER + _GAP)
    canvas = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    captions = []
    for place, index in enumerate(picked):
        left, top = _GAP + place % columns * step[0], _GAP + place // columns * step[1]
        with split.open(int(index)) as picture:
            pixels = fit(picture, preprocess)
        shown = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        canvas.paste(shown.resize((width * times, height * times), Image.Resampling.NEAREST), (left, top))
        captions.append(split.text(int(index)))
        words = captions[-1] if captions[-1].isascii() else ""
        line = f"{place + 1} {words}"
        while len(line) > 2 and pen.textlength(line) > side[0]:
            line = line[:-1]
        pen.text((left, top + side[1] + 4), line, fill="black")
    try:
        with atomic(path) as file:
            canvas.save(file, format="PNG")
    except OSError as error:
        raise OrchardError(f"the mosaic cannot be written to {path}: {error.strerror or error}") from None
    return captions
