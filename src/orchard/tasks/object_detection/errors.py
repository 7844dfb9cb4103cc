"""What is wrong with a detector's answers, by kind (TIDE: Bolya et al. 2020, arXiv:2008.08115, section 2).

An answer is right if an object of its class that no more confident answer has taken overlaps it by `FOREGROUND`. Every
other answer is one error of five kinds; an object that neither a right answer nor one of the wrong class or place
stands for is missed. Where several kinds would fit, the first in the order of TIDE's code is taken: localisation,
classification, duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchard.data.boxes.contracts import DetectionSplit, Objects
from orchard.tasks.object_detection.objective import Predictions

FOREGROUND = 0.5  # overlap (IoU) from which a box or mask is that of an object
LIKELY = 0.5  # probability from which an answer counts as said, unless an evaluation is told another
BACKGROUND = 0.1  # overlap up to which it is that of none
KINDS = {
    "classification": "right place, wrong class",
    "localisation": "right class, overlaps too little",
    "both": "wrong class, and overlaps too little",
    "duplicate": "an object that a more confident answer has already",
    "background": "no object there",
    "missed": "an object without any of these answers",
}


@dataclass(frozen=True)
class Wrong:
    """One error of an image: an answer, the object that it is nearest to, or both."""

    kind: str
    answer: int | None  # its place among the answers of the image
    object: int | None


@dataclass(frozen=True)
class ImageErrors:
    """Errors of one image: those of answers, the most confident first, then missed objects in their order."""

    errors: list[Wrong]
    unmatched: int  # objects without a right answer, of which not all are missed

    def count(self, kind: str) -> int:
        return sum(error.kind == kind for error in self.errors)


def errors_of_split(predictions: Predictions, split: DetectionSplit, likely: float) -> list[ImageErrors]:
    """The errors of each image, by the answers of at least the probability `likely`."""
    found = []
    for place, index in enumerate(predictions.indices.tolist()):
        scores, objects = predictions.scores[place], split.objects(index)
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= likely]
        overlaps = predictions.overlaps(place, order, objects)
        found.append(find_errors(order.numpy(), predictions.labels[place].numpy(), overlaps.numpy(), objects))
    return found


def count_by_kind(errors: Sequence[ImageErrors]) -> dict[str, int]:
    return {kind: sum(one.count(kind) for one in errors) for kind in KINDS}


def find_errors(order: np.ndarray, labels: np.ndarray, overlaps: np.ndarray, objects: Objects) -> ImageErrors:
    """The errors of one image's answers: places (K,) in `order`, the most confident first, among labels (Q,), and the
    IoU (K, N) of their boxes or masks with the objects'.

    An answer on an object that is ignored, of its class, counts neither way, and an ignored object is never missed.
    """
    free = np.ones(len(objects.labels), bool)
    errors: list[Wrong] = []
    for answer, row in zip(order.tolist(), overlaps, strict=True):
        same = objects.labels == labels[answer]
        fits = np.where(free & same & (row >= FOREGROUND), row, -1)
        if fits.max(initial=-1) < 0:
            errors.append(_kind(answer, row, same, ~objects.ignored))
        elif not objects.ignored[fits.argmax()]:
            free[fits.argmax()] = False
    unmatched = free & ~objects.ignored
    touched = [error.object for error in errors if error.kind in ("classification", "localisation")]
    missed = [Wrong("missed", None, n) for n in np.flatnonzero(unmatched).tolist() if n not in touched]
    return ImageErrors(errors + missed, int(unmatched.sum()))


def _kind(answer: int, overlaps: np.ndarray, same: np.ndarray, counted: np.ndarray) -> Wrong:
    """Which error an answer is, by its overlaps (M,) with the objects; `same` (M,) are those of its class."""

    def nearest(which: np.ndarray) -> tuple[int, float]:
        if not which.any():
            return -1, 0.0
        place = int(np.where(which, overlaps, -1).argmax())
        return place, float(overlaps[place])

    (right, right_overlap), (other, other_overlap) = nearest(counted & same), nearest(counted & ~same)
    if BACKGROUND <= right_overlap < FOREGROUND:
        return Wrong("localisation", answer, right)
    if other_overlap >= FOREGROUND:
        return Wrong("classification", answer, other)
    if right_overlap >= FOREGROUND:
        return Wrong("duplicate", answer, right)
    if other_overlap >= BACKGROUND:
        return Wrong("both", answer, other)
    return Wrong("background", answer, None)
