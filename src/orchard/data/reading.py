"""Reading what is only needed at the end, before the first step: a broken picture shall not cost a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, singledispatch
from typing import Any

from orchard.data.boxes.collect import FileBoxes
from orchard.data.captions.tsv import TsvSplit
from orchard.data.collect import GO_ON
from orchard.data.files import FileSplit
from orchard.data.masks.collect import FileMasks
from orchard.data.resolutions import Resolutions
from orchard.data.settings import DataSettings
from orchard.data.two_sides.contracts import TwoSides
from orchard.errors import OrchardError


@singledispatch
def read_record(split: Any, index: int) -> None:
    """Read one record of a split whole. What is made, or in memory, cannot break."""


@read_record.register
def _(split: FileSplit, index: int) -> None:
    split.image(index)


@read_record.register
def _(split: TsvSplit, index: int) -> None:
    split.image(index)


@read_record.register
def _(split: FileBoxes, index: int) -> None:
    split.record(index)


@read_record.register
def _(split: FileMasks, index: int) -> None:
    split.record(index)


@read_record.register
def _(split: Resolutions, index: int) -> None:
    read_record(split.images, index)
    for stored in split.low.values():
        read_record(stored, index)
    if split.references:
        read_record(*split.references[index])


@read_record.register
def _(split: TwoSides, index: int) -> None:
    for side in (split.a, split.b):
        if index < len(side):
            side.image(index)


def can_break(split: Any) -> bool:
    """Is it stored record by record, so that one of them may break, be mended or be left out?"""
    return read_record.dispatch(type(split)) is not read_record.dispatch(object)


def read_through(splits: Mapping[str, Any], names: Sequence[str], settings: DataSettings) -> None:
    """Read every picture of some splits, several at a time. Raises OrchardError that names those that are broken.

    Where bad records are skipped, all were read when the data was opened.
    """
    for name in names:
        split = splits.get(name)
        if split is None or settings.bad_records == "skip" or not can_break(split):
            continue
        with ThreadPoolExecutor(4) as pool:
            found = [said for said in pool.map(partial(_fault, split), range(len(split))) if said]
        if found:
            first = "; ".join(found[:3]) + ("; ..." if len(found) > 3 else "")
            raise OrchardError(
                f"{len(found)} of {len(split)} {name} pictures cannot be read: {first}\nmend or remove them, {GO_ON}"
            )


def _fault(split: Any, index: int) -> str:
    try:
        read_record(split, index)
    except OrchardError as error:
        return str(error)
    return ""
