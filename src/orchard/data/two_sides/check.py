"""What `orchard data check` says of pictures of two sides, and how they are recognised by their folders.

Folders A and B may be two classes, and side by side is told by nobody: by look alone only trainA and trainB are known.
Where a model is named that learns from two sides, all layouts are read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

import numpy as np

from orchard.data.checked import Checked
from orchard.data.resolutions import files_of
from orchard.data.settings import CaptionSource
from orchard.data.two_sides.alone import open_alone
from orchard.data.two_sides.contracts import SIDES, TwoSidesData
from orchard.data.two_sides.layout import SIDE, shared_stems
from orchard.data.two_sides.sources import open_pairs, open_unpaired
from orchard.errors import OrchardError


def are_pairs(source: str) -> bool:
    """Whether a path that exists holds folders trainA and trainB, with the same names in most of both."""
    names = _names(source)
    both, one = shared_stems(names)
    return bool(both) and len(both) >= len(one) and _have_splits(names)


def are_unpaired(source: str) -> bool:
    """Whether a path that exists holds folders trainA and trainB whose pictures have other names."""
    names = _names(source)
    return _have_splits(names) and not are_pairs(source)


def _names(source: str) -> Sequence[str]:
    try:
        files = files_of(source)
        return files.names()[0] if files is not None else []
    except (OSError, zipfile.BadZipFile, OrchardError):  # what is damaged is for others to say
        return []


def _have_splits(names: Sequence[str]) -> bool:
    found = {match.groups() for name in names for folder in name.split("/")[:-1] if (match := SIDE.fullmatch(folder))}
    return {side for split, side in found if split} == set(SIDES)


def check_pairs(source: str, settings: CaptionSource) -> Checked:
    """Pairs by split, their sizes and modes, and what is wrong with the files; where most pictures of two folders have
    no pair, what `check_unpaired` says."""
    both, one = shared_stems(_names(source))
    if len(one) > len(both):
        return check_unpaired(source, settings)
    return _checked(open_pairs(source, settings.model_copy(update={"bad_records": "skip"})))


def check_unpaired(source: str, settings: CaptionSource) -> Checked:
    """Pictures by split and side, their sizes and modes, and what is wrong with the files."""
    return _checked(open_unpaired(source, settings.model_copy(update={"bad_records": "skip"})))


def check_alone(source: str, settings: CaptionSource) -> Checked:
    """Pictures by split, their sizes, and what is wrong with the files; grey ones are in for those who take them."""
    data = open_alone(source, settings.model_copy(update={"bad_records": "skip"}))
    counts: dict[str, dict[str, int]] = {name: {"pictures": len(split)} for name, split in data.splits.items()}
    problems = (*data.remarks, *(f"{one.key}: {one.what}" for one in data.problems))
    return Checked(data.source, data.format, data.reason, counts, _sizes(data, "B", ""), problems, data.fingerprint)


def _sizes(data: TwoSidesData, side: str, of: str) -> dict[str, object]:
    """The sizes of the pictures of a side, which is named `of`."""
    sizes = np.concatenate([split.side(side).sizes for split in data.splits.values()])
    return {
        f"{what}{of}, pixels (smallest, median, largest)": [
            int(values.min()), int(np.median(values)), int(values.max())
        ]
        for what, values in (("height", sizes[:, 0]), ("width", sizes[:, 1]))
    }  # fmt: skip


def _checked(data: TwoSidesData) -> Checked:
    counts = {
        name: {"pairs": len(split)} if split.paired else {"A": len(split.a), "B": len(split.b)}
        for name, split in data.splits.items()
    }
    facts: dict[str, object] = {}
    for side, channels in zip(SIDES, data.channels, strict=True):
        facts |= _sizes(data, side, f" of {side}")
        facts[f"colour of {side}"] = "grey" if channels == 1 else "RGB"
    problems = (*data.remarks, *(f"{one.key}: {one.what}" for one in data.problems))
    return Checked(data.source, data.format, data.reason, counts, facts, problems, data.fingerprint)
