"""From annotated files to a set: check boxes, look at every picture, settle what is wrong, split, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchard.data.boxes.contracts import DetectionData, DetectionRecord, DetectionSplit, Objects
from orchard.data.boxes.object_masks import Masks, read_mask
from orchard.data.collect import GO_ON, places_of_splits
from orchard.data.contracts import Problem
from orchard.data.files import Files, Seen, look_at_all, read_picture
from orchard.data.settings import DataSettings
from orchard.errors import OrchardError

CUT = "cut"
FAULTS = {
    "no numbers": "has corners that are no finite numbers",
    "no area": "has no area",
    "outside": "lies outside of the picture",
    CUT: "is cut off at the edge of the picture",  # and used
}
ROUNDING = 0.5  # pixels that a box may be over the edge before that is worth a word


@dataclass(frozen=True)
class Box:
    """One object as a file has it."""

    label: str
    corners: tuple[float, float, float, float]  # left, top, right, bottom, in pixels or as shares of the picture
    ignored: bool = False
    mask: Any = None  # as COCO's `segmentation` has it
    which: str = ""  # of the annotations in its file, for messages: ", annotation 3"


@dataclass(frozen=True)
class Annotated:
    """One picture as the files have it."""

    name: str  # its file
    boxes: Sequence[Box]
    split: str = ""  # empty where none is given
    where: str = ""  # the file of its annotations, for messages
    size: tuple[int, int] | None = None  # width and height as annotated
    shares: bool = False  # corners are shares of the picture's size, not pixels


@dataclass(frozen=True)
class Found:
    """What reading annotations came to, before any picture is looked at."""

    source: str
    format: str
    reason: str
    files: Files
    pictures: list[Annotated]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] | None = None
    problems: list[Problem] = field(default_factory=list)  # bad annotations
    notes: Sequence[str] = ()  # what a person should know of where it is from


class FileBoxes(DetectionSplit):
    """Pictures in files, decoded when they are needed."""

    def __init__(
        self, files: Files, names: Sequence[str], objects: Sequence[Objects], channels: int, seen: Sequence[Seen]
    ):
        self.files, self.names, self._objects, self.channels = files, list(names), list(objects), channels
        self.digests = [one.digest for one in seen]
        self._sizes = np.array([(one.height, one.width) for one in seen], np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.names)

    def record(self, index: int) -> DetectionRecord:
        image = read_picture(self.files, self.names[index], self.channels)
        return DetectionRecord(image, self.objects(index), self.key(index))

    def objects(self, index: int) -> Objects:
        return self._objects[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image."""
        height, width = self._sizes[index].tolist()
        return height, width

    def key(self, index: int) -> str:
        return str(self.files.path / self.names[index])


def collect(found: Found, settings: DataSettings, masks: bool = False) -> DetectionData:
    """Make a set of what was found, with the objects' masks where `masks` asks for them.

    Raises OrchardError where it cannot be one, and for pictures that cannot be read, boxes that enclose nothing and
    masks that are none, unless `bad_records` is "skip"; then they are left out and listed.
    """
    has_masks = any(box.mask for picture in found.pictures for box in picture.boxes)
    if masks and not has_masks:
        raise OrchardError(
            f"{found.source} has boxes without masks; expected 'segmentation' in the annotations of a JSON file in the "
            f"form of COCO"
        )
    skip = settings.bad_records == "skip"
    looks = look_at_all(found.files, [one.name for one in found.pictures], thorough=skip)
    problems: list[Problem] = []
    unread = [Problem(p.name, seen) for p, seen in zip(found.pictures, looks, strict=True) if isinstance(seen, str)]
    _settle(unread, f"of {len(looks)} pictures cannot be read", settings, problems)
    wrong = list(found.problems)
    faults: dict[str, list[str]] = {fault: [] for fault in FAULTS}
    good: list[tuple[Annotated, Seen, Objects]] = []
    for picture, seen in zip(found.pictures, looks, strict=True):
        if isinstance(seen, Seen):
            good.append((picture, seen, _objects(picture, seen, found.classes, wrong, faults, masks)))
    _settle(wrong, "annotations are wrong", settings, problems)
    if not good:
        raise OrchardError(f"{found.source} has no annotated picture that can be read")
    channels = 1 if all(seen.grey for _, seen, _ in good) else 3
    splits: dict[str, FileBoxes] = {}
    digest = hashlib.sha256("\0".join(found.classes).encode())
    given, digests = [picture.split for picture, _, _ in good], [seen.digest for _, seen, _ in good]
    for split, places in places_of_splits(given, np.zeros(len(good), np.int64), digests, settings).items():
        chosen = [good[place] for place in places]
        names, objects = [picture.name for picture, _, _ in chosen], [one for _, _, one in chosen]
        splits[split] = FileBoxes(found.files, names, objects, channels, [seen for _, seen, _ in chosen])
        for picture, seen, one in chosen:
            digest.update(f"\n{split}\0{picture.name}\0".encode(errors="surrogatepass") + seen.digest)
            digest.update(one.boxes.tobytes() + one.labels.tobytes() + one.ignored.tobytes())
            if one.masks is not None:
                digest.update(b"\0".join(one.masks.runs))
    return DetectionData(
        "boxes", found.source, found.format, found.reason, found.classes, channels, splits, digest.hexdigest(),
        found.category_ids, tuple(problems), has_masks, tuple(found.notes), faults,
    )  # fmt: skip


def _objects(
    picture: Annotated,
    seen: Seen,
    classes: Sequence[str],
    wrong: list[Problem],
    faults: Mapping[str, list[str]],
    masks: bool,
) -> Objects:
    """The boxes of one picture, cut off at its edges, with their masks. Those with nothing left go on the list of what
    is wrong, and all that are not as they should be on that of their fault."""
    where = picture.where or picture.name
    if picture.size is not None and picture.size != (seen.width, seen.height):
        stated = "x".join(map(str, picture.size))
        wrong.append(Problem(where, f"is for a picture of {stated}, {picture.name} has {seen.width}x{seen.height}"))
    place = {label: n for n, label in enumerate(classes)}
    size = np.array([seen.width, seen.height] * 2, np.float32)
    boxes: list[np.ndarray] = []
    runs: list[bytes] = []
    kept: list[Box] = []
    for box in picture.boxes:
        with np.errstate(over="ignore"):  # what is too large for float32 is no number then, and said to be none
            corners = np.array(box.corners, np.float64).astype(np.float32) * (size if picture.shares else 1)
        cut = np.clip(corners, 0, size)
        fault = _fault(corners, cut)
        if fault:
            faults[fault].append(where + box.which)
        if fault and fault != CUT:
            shown = ", ".join(f"{value:g}" for value in box.corners)
            wrong.append(Problem(where + box.which, f"a box of '{box.label}' {FAULTS[fault]} ({shown})"))
            continue
        if masks:
            try:
                runs.append(read_mask(box.mask, seen.height, seen.width))
            except ValueError as error:
                wrong.append(Problem(where + box.which, f"'{box.label}' has {error}"))
                continue
        boxes.append(cut)
        kept.append(box)
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([place[box.label] for box in kept], np.int64),
        np.array([box.ignored for box in kept], bool),
        Masks(seen.height, seen.width, tuple(runs)) if masks else None,
    )


def _fault(corners: np.ndarray, cut: np.ndarray) -> str:
    """Which of `FAULTS` a box has, by its corners (4,) and what of it is inside the picture; empty if none."""
    if not np.isfinite(corners).all():
        return "no numbers"
    if not (corners[2:] > corners[:2]).all():
        return "no area"
    if not (cut[2:] > cut[:2]).all():
        return "outside"
    return CUT if np.abs(cut - corners).max() > ROUNDING else ""


def _settle(bad: Sequence[Problem], what: str, settings: DataSettings, problems: list[Problem]) -> None:
    """Refuse what is bad, naming the first of it, or put it on the list of problems."""
    if bad and settings.bad_records == "refuse":
        first = "; ".join(f"{p.key}: {p.what}" for p in bad[:3]) + ("; ..." if len(bad) > 3 else "")
        raise OrchardError(f"{len(bad)} {what}: {first}\nmend them, {GO_ON}")
    problems.extend(bad)
