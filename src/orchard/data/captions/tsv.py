"""Picture TSVs: rows of a text and its picture in base64, in one file or in several, as EasyNLP's are."""

from __future__ import annotations

import hashlib
import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from orchard.data.captions.contracts import CaptionData, CaptionSettings, CaptionSplit, Progress, pixels, zeros
from orchard.data.captions.fields import picture_bytes
from orchard.data.captions.index import TsvFile, index_file
from orchard.data.collect import GO_ON, SPLIT_WORDS
from orchard.data.pictures import FAULTS, GREY_MODES, fault, open_picture
from orchard.data.splits import AllBut, fingerprint, hold_out_by_content
from orchard.errors import OrchardError, UsageError

ENDINGS = (".tsv", ".tsv.gz")
_ALL_LOOKED_AT = 20_000  # pictures of a set up to which every one is looked at when it is opened
_SAMPLE = 2_000  # pictures of a larger set that are
_HEAD = 2**16  # characters of base64 in which most pictures have their header
_KEPT_TEXTS = 4096


class TsvSplit(CaptionSplit):
    """Rows of one file or several, read when they are asked for."""

    def __init__(self, files: Sequence[TsvFile], places: np.ndarray | AllBut | None = None):
        """`places` (N): which of the files' rows, counted through; none: all of them."""
        self.files, self.places = list(files), places
        self.ends = list(accumulate(map(len, files)))
        self.labels = zeros(self.ends[-1] if places is None else len(places))
        self.small = False
        self._said: dict[int, str] = {}  # texts of rows whose pictures were just read, so that no row is read twice

    def _at(self, index: int) -> tuple[TsvFile, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        row = index if self.places is None else int(self.places[index])
        number = bisect_right(self.ends, row)
        return self.files[number], row - (self.ends[number - 1] if number else 0)

    def marks(self) -> np.ndarray:
        """(N,) int64: what each row's picture is known by."""
        every = np.concatenate([file.marks for file in self.files])
        if isinstance(self.places, AllBut):
            return np.delete(every, self.places.without)
        return every if self.places is None else every[self.places]

    def texts(self, index: int) -> tuple[str, ...]:
        said = self._said.pop(index, None)
        if said is None:
            file, row = self._at(index)
            said = file.fields(row)[file.layout.text].decode().strip()
        return (said,)

    def idx(self, index: int) -> str:
        file, row = self._at(index)
        place = file.layout.idx
        return self.key(index) if place is None else file.fields(row)[place].decode("utf-8", "replace")

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        file, row = self._at(index)
        fields = file.fields(row)
        if len(self._said) >= _KEPT_TEXTS:
            self._said.clear()
        self._said[index] = fields[file.layout.text].decode().strip()
        try:
            with open_picture(io.BytesIO(picture_bytes(fields[file.layout.picture]))) as picture:
                yield picture
        except FAULTS as error:
            raise OrchardError(f"{file.key(row)}: {fault(error)}") from None

    def look(self, index: int) -> tuple[tuple[int, int], bool]:
        """Width and height of a picture, and whether it is grey. Raises OrchardError where its header is none."""
        file, row = self._at(index)
        field = file.fields(row)[file.layout.picture]
        if len(field) > _HEAD:
            with suppress(*FAULTS):  # some formats have their header at the end
                return _header(field[:_HEAD])
        try:
            return _header(field)
        except FAULTS as error:
            raise OrchardError(f"{file.key(row)}: {fault(error)}\nmend or remove what is bad, {GO_ON}") from None

    def image(self, index: int) -> Tensor:
        return pixels(self, index)

    def key(self, index: int) -> str:
        file, row = self._at(index)
        return file.key(row)


def _header(field: bytes) -> tuple[tuple[int, int], bool]:
    with open_picture(io.BytesIO(picture_bytes(field))) as picture:
        return picture.size, picture.mode in GREY_MODES


_SPLIT = re.compile(rf"(?<![a-z0-9])({'|'.join(SPLIT_WORDS)})(?![a-z0-9])", re.IGNORECASE)


def split_word(path: Path) -> str:
    """Which split a file's name says it is: the word in `x.train.tsv`, `MUGE_val_text_imgbase64.tsv`; else nothing."""
    words = _SPLIT.findall(path.name)
    return SPLIT_WORDS[words[-1].lower()] if words else ""


def set_pattern(path: Path) -> str:
    """What the files of one set share, as a pattern: `x.*` for `x.train.tsv.gz`."""
    ending = next(ending for ending in reversed(ENDINGS) if path.name.lower().endswith(ending))
    return _SPLIT.sub("*", path.name[: -len(ending)])


def open_tsv(
    source: str, paths: Sequence[Path], settings: CaptionSettings, progress: Progress | None = None
) -> CaptionData:
    """The set in `paths`. Several files whose names say so are its splits; others are read one after the other.

    What is not given is held out of the training rows, by their pictures, so that rows that share one stay together.
    Of up to 20,000 pictures every header is looked at, of more a sample; what is wrong with the others shows when they
    are read, with file and line. Raises OrchardError for bad rows as `index_file` does.
    """
    words = [split_word(path) for path in paths] if len(paths) > 1 else [""]
    if any(words) and not all(words):
        without = paths[words.index("")]
        raise UsageError(f"the names of some files say train, validation or test, but not that of {without}")
    if any(words) and "train" not in words and settings.training:
        raise UsageError(f"no file of {source} is named train; it has {', '.join(sorted(set(words)))}")
    groups: dict[str, list[TsvFile]] = {}
    for word, path in zip(words, paths, strict=True):
        groups.setdefault(word or "train", []).append(index_file(path, settings, progress))
    splits = _splits(groups, settings, given=any(words))
    channels = _look(splits)
    layout = next(iter(groups.values()))[0].layout
    mark = fingerprint(
        ((name, file.path.name, len(split), file.digest + hashlib.sha256(_chosen(split)).digest())
         for name, split in splits.items() for file in split.files),
        (repr(layout), settings.bad_records),
    )  # fmt: skip
    reason = f"it has {layout.count} columns, of which number {layout.picture + 1} holds pictures in base64"
    problems = tuple(problem for files in groups.values() for file in files for problem in file.problems)
    return CaptionData("captions", source, "picture TSV", reason, channels, splits, mark, problems)


def _splits(groups: Mapping[str, list[TsvFile]], settings: CaptionSettings, given: bool) -> dict[str, TsvSplit]:
    splits = {name: TsvSplit(files) for name, files in groups.items()}
    if settings.whole and not given:
        return {"test": splits["train"]}
    if "validation" not in splits and "train" in splits and not settings.whole:
        files, marks = groups["train"], splits["train"].marks()
        shares = (settings.validation_fraction, 0.0 if given else settings.test_fraction)
        held = hold_out_by_content(marks, np.zeros(len(marks), np.int64), shares, settings.split_seed)
        splits["train"] = TsvSplit(files, AllBut(len(marks), np.sort(np.concatenate(held))))
        splits |= {
            name: TsvSplit(files, part) for name, part in zip(("validation", "test"), held, strict=True) if len(part)
        }
    return {name: splits[name] for name in ("train", "validation", "test") if name in splits}


def _chosen(split: TsvSplit) -> bytes | memoryview:
    if isinstance(split.places, AllBut):
        return split.places.below.data
    return b"all" if split.places is None else split.places.data


def _look(splits: Mapping[str, TsvSplit]) -> int:
    """Look at pictures of all splits, say which splits are of small ones, and return the channels of the set."""
    total = sum(len(split) for split in splits.values())
    grey = True
    for split in splits.values():
        share = 1.0 if total <= _ALL_LOOKED_AT else _SAMPLE / total
        largest = 0
        for index in np.unique(np.linspace(0, len(split) - 1, max(1, int(len(split) * share))).astype(int)):
            size, one_grey = split.look(int(index))
            largest, grey = max(largest, *size), grey and one_grey
        split.small = share == 1.0 and largest <= 64
    return 1 if grey else 3
