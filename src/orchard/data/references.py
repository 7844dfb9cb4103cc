"""Reference pictures: for each image another one that shows something alike at high resolution, or does not.

They are stored beside the images, as CUFED has them, or chosen among the images themselves: of frames of a video the
neighbouring one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from orchard.data import resolutions
from orchard.data.captions import CaptionSettings
from orchard.data.captions.contracts import zeros
from orchard.data.checked import Checked
from orchard.data.collect import settle
from orchard.data.contracts import ImageSplit, Problem
from orchard.data.files import Files, FileSplit, Seen, look_at_all, reading
from orchard.data.resolutions import ResolutionData, Resolutions, files_of, open_resolutions
from orchard.data.settings import ReferenceSource
from orchard.data.unlabelled import collect_pictures
from orchard.data.walk import IMAGES, ending_of
from orchard.errors import OrchardError
from orchard.given import Given

INPUT, REFERENCE = "input", "ref"  # folders, as the training set of CUFED has them
NUMBERED = re.compile(r"(.+)_([0-5])")  # as CUFED5 has them: the image is 0, the most similar reference 1
LAYOUTS = "folders input and ref with files of the same names, or files NAME_0.png and NAME_1.png"
NUMBER = re.compile(r"\d+(?!.*\d)")  # the last in a name
Place = tuple[ImageSplit, int]


def open_with_references(
    source: str | Given, settings: ReferenceSource, scales: Sequence[int]
) -> ResolutionData:  # fmt: skip
    """Images for a model of these scales that takes a reference, each with one.

    Raises UsageError or OrchardError as `open_resolutions` does, and where an image has no reference.
    """
    how = settings.reference
    if not isinstance(source, Given) and how in (None, "stored"):
        with reading(source):
            files = files_of(source)
            pairs = stored_references(files.names()[0]) if files is not None else {}
            if files is not None and pairs:
                return _stored(source, files, pairs, settings)
    if how == "stored":
        place = source.source if isinstance(source, Given) else source
        raise OrchardError(f"{place} stores no references; expected {LAYOUTS}")
    data = open_resolutions(source, settings, scales)
    everything = [(split.key(n), (split.images, n)) for split in data.splits.values() for n in range(len(split))]
    chosen = choose(sorted(everything, key=lambda one: one[0]), how or "neighbour")
    splits = {
        name: dataclasses.replace(split, references=[chosen[split.key(n)] for n in range(len(split))])
        for name, split in data.splits.items()
    }
    return ResolutionData(data.images, splits)


def stored_references(names: Sequence[str]) -> dict[str, str]:
    """Each image's reference, where the names are of one of the two layouts; empty for an image without one."""
    pictures = [name for name in names if ending_of(name) in IMAGES]
    beside = {_stem(name): name for name in pictures if REFERENCE in name.split("/")[:-1]}
    inputs = [name for name in pictures if INPUT in name.split("/")[:-1]]
    if beside and inputs:
        return {name: beside.get(_stem(_in_reference_folder(name)), "") for name in inputs}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in pictures:
        match = NUMBERED.fullmatch(_stem(name))
        if match is None:
            return {}
        found[match[1]][match[2]] = name
    if any("0" not in group or "1" not in group for group in found.values()):
        return {}
    return {group["0"]: group["1"] for group in found.values()}


def _stem(name: str) -> str:
    """The path without the ending."""
    return name.rpartition(".")[0]


def _in_reference_folder(name: str) -> str:
    *folders, last = name.split("/")
    folders[len(folders) - 1 - folders[::-1].index(INPUT)] = REFERENCE
    return "/".join([*folders, last])


def _stored(source: str, files: Files, pairs: Mapping[str, str], settings: ReferenceSource) -> ResolutionData:
    thorough = settings.bad_records == "skip"
    there = [reference for reference in pairs.values() if reference]
    looks = dict(zip(there, look_at_all(files, there, thorough), strict=True))
    bad = [
        Problem(name, f"{reference}: {looks[reference]}" if reference else "no picture of its name in the folder ref")
        for name, reference in pairs.items()
        if not isinstance(looks.get(reference), Seen)
    ]
    problems: list[Problem] = []
    settle(bad, "have no reference", "mend or remove them", settings, problems, len(pairs))
    left_out = {problem.key for problem in problems}
    images = collect_pictures(source, files, [name for name in pairs if name not in left_out], settings)
    splits, digest = {}, hashlib.sha256(images.fingerprint.encode())
    for name, split in images.splits.items():
        assert isinstance(split, FileSplit)
        names = [pairs[image] for image in split.names]
        seen = [look for one in names if isinstance(look := looks[one], Seen)]
        references = FileSplit(files, names, zeros(len(names)), seen)
        splits[name] = Resolutions(split, references=[(references, n) for n in range(len(names))])
        digest.update(b"reference" + b"".join(references.digests))
    images = dataclasses.replace(
        images, format="images and references", reason="every image has a reference beside it",
        fingerprint=digest.hexdigest(), problems=(*problems, *images.problems),
    )  # fmt: skip
    return ResolutionData(images, splits)


def choose(images: Sequence[tuple[str, Place]], how: Literal["neighbour", "unrelated", "self"]) -> dict[str, Place]:
    """For the key of each image the place of another, or of itself. `images` are sorted by their keys.

    A neighbour has the same name but for its last number, which is the nearest (of two as near, the next one). What is
    unrelated has another name, where any has; else it is half of the set away. Raises OrchardError for an image without
    a neighbour.
    """
    if how == "self":
        return dict(images)
    if len(images) < 2:
        raise OrchardError("a reference is another image of the set, which has only one; set data.reference=self")
    frames: dict[str, list[tuple[int, str, Place]]] = defaultdict(list)
    for key, place in images:
        sequence, number = frame_of(key)
        frames[sequence].append((number, key, place))
    found = {}
    if how == "unrelated":
        for sequence, mine in frames.items():
            others = [place for name, rest in frames.items() if name != sequence for _, _, place in rest]
            for n, (_, key, _) in enumerate(mine):
                half = (n + len(mine) // 2) % len(mine)
                found[key] = others[n * len(others) // len(mine)] if others else mine[half][2]
        return found
    for mine in frames.values():
        mine.sort(key=lambda one: one[:2])
        for n, (number, key, _) in enumerate(mine):
            near = [mine[m] for m in (n + 1, n - 1) if 0 <= m < len(mine)]
            if not near:
                raise OrchardError(
                    f"{key} has no neighbouring frame; expected names that differ in a number, such as walk_001.png "
                    "and walk_002.png: rename it, or set data.reference=unrelated"
                )
            found[key] = min(near, key=lambda one: abs(one[0] - number))[2]
    return found


def recognise(source: str) -> bool:
    """Whether a path that exists holds pairs of resolutions, or images and references in two folders."""
    if resolutions.recognise(source):
        return True
    try:
        files = files_of(source)
        pairs = stored_references(files.names()[0]) if files is not None else {}
        return any(reference and INPUT in name.split("/")[:-1] for name, reference in pairs.items())
    except (OSError, zipfile.BadZipFile, OrchardError):
        return False


def check(source: str, settings: CaptionSettings) -> Checked:
    """What `check_resolutions` says, and of images with references how many there are and what is wrong with them."""
    if resolutions.recognise(source):
        return resolutions.check_resolutions(source, settings)
    chosen = ReferenceSource(source=source, reference="stored", bad_records="skip")
    data = open_with_references(source, chosen, ())
    counts = {name: {"images": len(split), "references": len(split.references)} for name, split in data.splits.items()}
    problems = tuple(f"{one.key}: {one.what}" for one in data.images.problems)
    return Checked(source, data.images.format, data.images.reason, counts, {}, problems, data.images.fingerprint)


def frame_of(key: str) -> tuple[str, int]:
    """The sequence that an image is a frame of, and its number there: its name without the last number, and that."""
    path = Path(key)
    match = NUMBER.search(path.stem)
    return str(path.parent / NUMBER.sub("*", path.stem)), int(match[0]) if match else 0
