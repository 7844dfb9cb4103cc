"""Panoptic quality (Kirillov et al. 2018, arXiv:1801.00868), by the rules of COCO's panopticapi.

A true and a predicted segment of one class match where their IoU is over 0.5, which is possible only once. SQ is the
mean IoU of matches, RQ their share of all segments (F1), and PQ = SQ RQ. Pixels that nobody annotated (void) are in no
union; a crowd matches nothing and is not missed. A predicted segment that lies by more than half in void or in crowds
of its class is no mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchard.data.panoptic.contracts import Segments
from orchard.tasks.panoptic_segmentation.merging import Segmented

MATCHED, WRONG, MISSED, IOU = range(4)  # rows of the counts: the last is the sum of the IoUs of the matched


def compare(truth: Segments, said: Segmented, classes: int) -> np.ndarray:
    """Counts of one image, (4, K) float64: matched, wrong and missed segments of each class, and the sum of IoUs."""
    real, predicted = len(truth.labels), len(said.labels)
    pairs = truth.map.numpy().astype(np.int64) * (predicted + 1) + said.map
    shared = np.bincount(pairs.ravel(), minlength=(real + 1) * (predicted + 1)).reshape(real + 1, predicted + 1)
    void, areas = shared[0, 1:], shared.sum(0)[1:]
    both = shared[1:, 1:]
    unions = shared.sum(1)[1:, None] + areas - both - void
    ious = both / np.maximum(unions, 1)
    same = truth.labels[:, None] == said.labels
    rows, columns = np.nonzero((ious > 0.5) & same & ~truth.crowd[:, None])
    forgiven = void + (both * (same & truth.crowd[:, None])).sum(0)
    missed, wrong = ~truth.crowd, forgiven <= 0.5 * areas
    missed[rows], wrong[columns] = False, False
    counts = np.zeros((4, classes))
    np.add.at(counts[MATCHED], truth.labels[rows], 1)
    np.add.at(counts[IOU], truth.labels[rows], ious[rows, columns])
    np.add.at(counts[WRONG], said.labels[wrong], 1)
    np.add.at(counts[MISSED], truth.labels[missed], 1)
    return counts


@dataclass(frozen=True)
class Qualities:
    """PQ, SQ and RQ of each class, (K,) float64 each; not a number where a class is neither true nor said."""

    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray


def qualities(counts: np.ndarray) -> Qualities:
    """Of counts (4, K) that were added up over images."""
    with np.errstate(invalid="ignore", divide="ignore"):
        halves = counts[MATCHED] + (counts[WRONG] + counts[MISSED]) / 2
        rq = counts[MATCHED] / halves
        sq = np.where(halves > 0, counts[IOU] / np.maximum(counts[MATCHED], 1), np.nan)
    return Qualities(sq * rq, sq, rq)


def figures_of(counts: np.ndarray, things: Sequence[bool]) -> dict[str, float]:
    """Means over the classes that are true or said: of all, of things and of stuff, where there are such."""
    found = qualities(counts)
    chosen = {"": np.ones(len(things), bool), "_things": np.array(things), "_stuff": ~np.array(things)}
    figures: dict[str, float] = {}
    for ending, among in chosen.items():
        counted = among & ~np.isnan(found.pq)
        if counted.any() or not ending:
            columns: Mapping[str, np.ndarray] = {"pq": found.pq, "sq": found.sq, "rq": found.rq}
            figures |= {f"{k}{ending}": float(v[counted].mean()) if counted.any() else 0.0 for k, v in columns.items()}
    return figures
