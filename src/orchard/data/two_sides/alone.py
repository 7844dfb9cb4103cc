"""Pictures alone, from a folder or a zip archive, each of which is both sides: what is given is made of it later."""

from __future__ import annotations

from orchard.data.captions.contracts import zeros
from orchard.data.collect import places_of_splits, strangers, top_folders
from orchard.data.contracts import DataSettings, Problem
from orchard.data.files import FileSplit, files_at, reading
from orchard.data.splits import fingerprint
from orchard.data.two_sides.contracts import TwoSides, TwoSidesData
from orchard.data.two_sides.layout import pictures_of
from orchard.data.two_sides.sources import looked_at
from orchard.data.walk import IMAGES
from orchard.errors import OrchardError

WHY_GREY = "grey, and teaches no colours; left out"


def open_alone(source: str, settings: DataSettings, *, coloured: bool = False) -> TwoSidesData:
    """All pictures of a place, however deep they stand; folders train, validation and test at its top are splits.

    Where they must be `coloured`, grey ones are left out. Raises UsageError where there is nothing of that name,
    OrchardError where no picture is left and, by `bad_records`, for one that cannot be read.
    """
    expected = f"expected pictures, such as {source.rstrip('/')}/1.jpg"
    with reading(source):
        files = files_at(source, "pictures", expected, ())
        names, _ = files.names()
        problems = strangers(names, IMAGES)
        seen = looked_at(files, pictures_of(names), settings, problems)
    if not seen:
        raise OrchardError(f"there is no picture in {source}; {expected}")
    good = [name for name, one in seen.items() if not (coloured and one.grey)]
    if not good:
        raise OrchardError(f"all {len(seen)} pictures in {source} are grey; expected some in colour to learn from")
    problems += [Problem(name, WHY_GREY) for name in seen.keys() - set(good)]
    given = top_folders(source, good, problems, settings)
    splits = {}
    for split, at in places_of_splits(given, zeros(len(good)), [seen[n].digest for n in good], settings).items():
        own = [good[n] for n in at]
        pictures = FileSplit(files, own, zeros(len(own)), [seen[name] for name in own])
        splits[split] = TwoSides(pictures, pictures, paired=True)
    mark = fingerprint(
        ((name, key, 0, digest)
         for name, split in splits.items() for key, digest in zip(split.a.names, split.a.digests, strict=True)),
        ("picture",),
    )  # fmt: skip
    left = len(seen) - len(good)
    remarks = (f"{left} of {len(seen)} pictures are grey and are left out, as they teach no colours",) if left else ()
    reason = f"it is a place with {len(good)} pictures"
    return TwoSidesData(source, "pictures", reason, splits, (3, 3), mark, tuple(problems), remarks)
