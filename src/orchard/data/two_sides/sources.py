"""From what a person wrote after --data to pictures of two sides.

Pairs are pictures side by side, A left and B right, or two folders with the same names in both; unpaired pictures are
two folders. Splits are those of the folders; what has none is held out by its content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from orchard.data.captions.contracts import zeros
from orchard.data.collect import places_of_splits, settle, strangers, top_folders
from orchard.data.contracts import DataSettings, Problem
from orchard.data.files import Archive, Files, FileSplit, Seen, files_at, look_at_all, reading
from orchard.data.pictures import FAULTS, GREY_MODES, open_picture
from orchard.data.splits import fingerprint
from orchard.data.two_sides.contracts import SIDES, Half, TwoSides, TwoSidesData
from orchard.data.two_sides.layout import LAYOUTS, Place, pictures_of, place_of, sides_of
from orchard.data.walk import IMAGES
from orchard.errors import OrchardError

EXPECTED = f"expected {LAYOUTS}"
PAIRS_EXPECTED = f"expected pictures side by side, or {LAYOUTS} with the same names in both"
MEND = "mend or remove them"


def open_pairs(source: str, settings: DataSettings) -> TwoSidesData:
    """Pictures in pairs. Raises UsageError where there is nothing of that name, OrchardError for pictures that do not
    go together: without one of the same name on the other side, or of another size."""
    with reading(source):
        files = files_at(source, "pairs of pictures", PAIRS_EXPECTED, ())
        names, folders = files.names()
        if sides_of(folders):
            return _pairs_in_folders(source, files, names, folders, settings)
        return _side_by_side(source, files, names, settings)


def open_unpaired(source: str, settings: DataSettings) -> TwoSidesData:
    """Pictures of two sides, each split by itself. Raises as `open_pairs` does, and for a picture on both sides."""
    with reading(source):
        files = files_at(source, "pictures of two sides", EXPECTED, ())
        names, folders = files.names()
        places, problems = _placed(source, names, folders)
        seen = looked_at(files, list(places), settings, problems)
        by_content: dict[bytes, str] = {}
        for name in seen:
            if places[name].side == "A":
                by_content.setdefault(seen[name].digest, name)
        twice = [
            Problem(name, f"the same picture as {by_content[one.digest]}")
            for name, one in seen.items()
            if places[name].side == "B" and one.digest in by_content
        ]
        settle(twice, "are on both sides", "take them out of one", settings, problems, len(seen))
        for problem in twice:
            seen.pop(by_content[seen.pop(problem.key).digest], None)
        split_sides = {}
        for side in SIDES:
            own = [name for name in seen if places[name].side == side]
            if not own:
                raise OrchardError(f"{source} has no pictures of side {side} that can be read")
            given, digests = [places[name].split for name in own], [seen[name].digest for name in own]
            _need_training(source, given, settings, side)
            found = places_of_splits(given, zeros(len(own)), digests, settings)
            split_sides[side] = {
                split: FileSplit(files, [own[n] for n in at], zeros(len(at)), [seen[own[n]] for n in at])
                for split, at in found.items()
            }
        a, b = split_sides["A"], split_sides["B"]
        alone = sorted(a.keys() ^ b.keys())
        problems += [Problem(name, f"pictures of side {'A' if name in a else 'B'} alone; left out") for name in alone]
        splits = {name: TwoSides(a[name], b[name], paired=False) for name in a if name in b}
        return _data(source, "two folders of pictures", files, splits, problems, settings)


def _pairs_in_folders(
    source: str, files: Files, names: Sequence[str], folders: Sequence[str], settings: DataSettings
) -> TwoSidesData:
    places, problems = _placed(source, names, folders)
    sides: dict[str, dict[tuple[str, str], str]] = {side: {} for side in SIDES}
    bad = []
    for name, place in places.items():
        own = sides[place.side].setdefault((place.split, place.stem), name)
        if own != name:
            bad.append(Problem(name, f"has the name of {own}, and only one can be of a pair"))
    for side, other in (("A", "B"), ("B", "A")):
        lonely = [name for key, name in sides[side].items() if key not in sides[other]]
        bad += [Problem(name, f"no picture of its name on side {other}") for name in lonely]
    settle(bad, "have no pair", MEND, settings, problems, len(places))
    pairs = [(sides["A"][key], sides["B"][key]) for key in sides["A"] if key in sides["B"]]
    seen = looked_at(files, [name for pair in pairs for name in pair], settings, problems)
    pairs = [(a, b) for a, b in pairs if a in seen and b in seen]
    unlike = [
        Problem(b, f"is {seen[b].width}x{seen[b].height} pixels, {a} is {seen[a].width}x{seen[a].height}")
        for a, b in pairs
        if (seen[a].width, seen[a].height) != (seen[b].width, seen[b].height)
    ]
    settle(unlike, "are not of the size of their pair", MEND, settings, problems, len(pairs))
    unfit = {problem.key for problem in unlike}
    pairs = [(a, b) for a, b in pairs if b not in unfit]
    if not pairs:
        raise OrchardError(f"{source} has no pairs; {PAIRS_EXPECTED}")
    given, digests = [places[a].split for a, _ in pairs], [seen[a].digest for a, _ in pairs]
    _need_training(source, given, settings)
    splits = {}
    for split, at in places_of_splits(given, zeros(len(pairs)), digests, settings).items():
        a, b = (
            FileSplit(files, own, zeros(len(own)), [seen[name] for name in own])
            for own in ([pairs[n][side] for n in at] for side in (0, 1))
        )
        splits[split] = TwoSides(a, b, paired=True)
    return _data(source, "two folders of pairs", files, splits, problems, settings)


def _side_by_side(source: str, files: Files, names: Sequence[str], settings: DataSettings) -> TwoSidesData:
    problems = strangers(names, IMAGES)
    seen = looked_at(files, pictures_of(names), settings, problems)
    odd = [
        Problem(name, f"is {one.width} pixels wide; expected an even number, A's and B's")
        for name, one in seen.items()
        if one.width % 2
    ]
    settle(odd, "are no two pictures side by side", MEND, settings, problems, len(seen))
    good = [name for name in seen if not seen[name].width % 2]
    if not good:
        raise OrchardError(f"there is no picture in {source}; {PAIRS_EXPECTED}")
    given = top_folders(source, good, problems, settings)
    found = places_of_splits(given, zeros(len(good)), [seen[name].digest for name in good], settings)
    splits = {}
    for split, at in found.items():
        own = [good[n] for n in at]
        a, b = (Half(files, own, [seen[name] for name in own], left=left) for left in (True, False))
        splits[split] = TwoSides(a, b, paired=True)
    return _data(source, "pictures side by side", files, splits, problems, settings)


def _placed(source: str, names: Sequence[str], folders: Sequence[str]) -> tuple[dict[str, Place], list[Problem]]:
    """The pictures that are in a folder of a side, and what is left out. OrchardError where a side has none."""
    there = sides_of(folders)
    if len(there) < 2:
        lacking = f"a folder for side {'A' if 'B' in there else 'B'}" if there else "folders of two sides"
        raise OrchardError(f"{source} has not {lacking}; {EXPECTED}")
    problems = strangers(names, IMAGES)
    places = {name: place for name in pictures_of(names) if (place := place_of(name))}
    left = [name for name in pictures_of(names) if name not in places]
    problems += [Problem(name, "in no folder of a side; left out") for name in left]
    for side in SIDES:
        if not any(place.side == side for place in places.values()):
            raise OrchardError(f"the folder of side {side} in {source} has no pictures")
    return places, problems


def _need_training(source: str, given: Sequence[str], settings: DataSettings, side: str = "") -> None:
    """OrchardError where folders give splits and none of them is for training."""
    if settings.training and any(given) and not {"", "train"} & set(given):
        of = f" of side {side}" if side else ""
        raise OrchardError(f"{source} has no training pictures{of}, only {', '.join(sorted(set(given)))}")


def looked_at(
    files: Files, names: Sequence[str], settings: DataSettings, problems: list[Problem]
) -> dict[str, Seen]:  # fmt: skip
    looks = look_at_all(files, names, thorough=settings.bad_records == "skip")
    bad = [Problem(name, look) for name, look in zip(names, looks, strict=True) if isinstance(look, str)]
    settle(bad, "cannot be read", MEND, settings, problems, len(looks))
    return {name: look for name, look in zip(names, looks, strict=True) if isinstance(look, Seen)}


def _data(
    source: str, format: str, files: Files, splits: dict[str, TwoSides], problems: list[Problem], settings: DataSettings
) -> TwoSidesData:
    if not splits or (settings.training and "train" not in splits):
        raise OrchardError(f"{source} has no split with pictures of both sides to learn from; {EXPECTED}")
    sides = [[split.side(side) for split in splits.values()] for side in SIDES]
    mark = fingerprint(
        ((f"{name}/{side}", own.names[n], 0, own.digests[n])
         for name, split in splits.items() for side in SIDES for own in [split.side(side)] for n in range(len(own))),
        ("picture",),
    )  # fmt: skip
    channels = tuple(1 if all(own.grey for own in side) else 3 for side in sides)
    counts = " and ".join(str(sum(len(own) for own in side)) for side in sides)
    reason = f"it is {'a zip archive' if isinstance(files, Archive) else 'a folder'} with {counts} pictures of A and B"
    remarks = [line for name, own in zip(SIDES, sides, strict=True) for line in _mixed(name, own)]
    return TwoSidesData(
        source, format, reason, splits, (channels[0], channels[1]), mark, tuple(problems), tuple(remarks)
    )  # fmt: skip


def _mixed(side: str, splits: Sequence[FileSplit]) -> list[str]:
    """A line about pictures of a side that are grey among others in colour, or transparent."""
    found: Counter[str] = Counter()
    for split in splits:
        for name in split.names:
            try:
                with split.files.open(name) as file, open_picture(file) as picture:
                    found["grey"] += picture.mode in GREY_MODES
                    found["transparent"] += picture.has_transparency_data
            except FAULTS:  # what is damaged behind its header is said when it is read
                continue
    total = int(np.sum([len(split) for split in splits]))
    lines = []
    if 0 < found["grey"] < total:
        lines.append(f"{found['grey']} of {total} pictures of side {side} are grey, and become RGB as the others are")
    if found["transparent"]:
        lines.append(f"{found['transparent']} of {total} pictures of side {side} are transparent in part: made white")
    return lines
