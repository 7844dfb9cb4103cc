"""Average precision and recall as COCO defines them, computed by its own code (torchmetrics over pycocotools)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from orchard.data.boxes.contracts import DetectionSplit, Objects
from orchard.tasks.object_detection.objective import Predictions

MOST = (1, 10, 100)  # detections of an image that count
# As COCO's own code has them: torchmetrics' are float32, so that a recall of 0.3 falls short of its threshold.
OVERLAPS, RECALLS = np.linspace(0.5, 0.95, 10).tolist(), np.linspace(0, 1, 101).tolist()
NAMES = {
    "map": "ap", "map_50": "ap50", "map_75": "ap75", "map_small": "ap_small", "map_medium": "ap_medium",
    "map_large": "ap_large", "mar_1": "ar1", "mar_10": "ar10", "mar_100": "ar100", "mar_small": "ar_small",
    "mar_medium": "ar_medium", "mar_large": "ar_large",
}  # fmt: skip


@dataclass(frozen=True)
class ClassFigures:
    """One class: its objects and the precision reached on them; curves as pairs of recall and precision."""

    name: str
    count: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of a split. Boxes of objects that are ignored count neither way."""

    figures: dict[str, float]  # `ap` is the mean over overlaps from 0.5 to 0.95; sizes without objects are left out
    classes: list[ClassFigures]  # those with objects
    curves: dict[str, list[tuple[float, float]]]  # overlap → (recall, precision), a mean over the classes


def evaluate_boxes(predictions: Predictions, split: DetectionSplit, classes: Sequence[str]) -> Evaluation:
    """Compare predictions with the objects of their split. An area is that of the box, where COCO's is of the mask."""
    compared = (
        (split.objects(index), said_of(predictions, n, {"boxes": predictions.boxes[n]}))
        for n, index in enumerate(predictions.indices.tolist())
    )
    pairs = ((objects, {"boxes": torch.from_numpy(objects.boxes)}, said) for objects, said in compared)
    found = evaluate_shapes(pairs, classes, "bbox")
    return Evaluation({"loss": float(predictions.losses.mean()), **found.figures}, found.classes, found.curves)


def said_of(predictions: Predictions, place: int, shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """The answers for one image: `shapes`, scores and labels."""
    there = predictions.scores[place] >= 0
    columns = shapes | {"scores": predictions.scores[place], "labels": predictions.labels[place]}
    return {name: column[there] for name, column in columns.items()}


def evaluate_shapes(
    images: Iterable[tuple[Objects, dict[str, Tensor], dict[str, Tensor]]],
    classes: Sequence[str],
    kind: Literal["bbox", "segm"],
) -> Evaluation:
    """Compare boxes, or masks, of images one by one: objects, their shapes by name, and what was said."""
    metric = MeanAveragePrecision(
        iou_type=kind, iou_thresholds=OVERLAPS, rec_thresholds=RECALLS, max_detection_thresholds=list(MOST),
        extended_summary=True, backend="pycocotools",
    )  # fmt: skip
    counts = torch.zeros(len(classes), dtype=torch.int64)
    for objects, shapes, said in images:
        labels, ignored = torch.from_numpy(objects.labels), torch.from_numpy(objects.ignored)
        counts += torch.bincount(labels[~ignored], minlength=len(classes))
        metric.update([said], [shapes | {"labels": labels, "iscrowd": ignored.long()}])
    found: dict[str, Any] = metric.compute()
    if "precision" not in found:  # nothing was said of any image
        return _nothing(counts, classes)
    figures = {ours: float(found[theirs]) for theirs, ours in NAMES.items() if float(found[theirs]) >= 0}
    # (overlaps, recalls, classes that were seen or said, sizes, most detections)
    precision: Tensor = found["precision"][:, :, :, 0, -1]
    seen = found["classes"].flatten().tolist()
    rows = []
    for place, label in enumerate(seen):
        if counts[label]:
            mean, half = precision[:, :, place].mean(), precision[0, :, place].mean()
            rows.append(ClassFigures(classes[label], int(counts[label]), float(mean), float(half)))
    kept = [place for place, label in enumerate(seen) if counts[label]]
    recalls = torch.linspace(0, 1, precision.shape[1]).tolist()
    curves = {
        f"{overlap:g}": list(zip(recalls, precision[place][:, kept].mean(1).tolist(), strict=True))
        for overlap, place in ((0.5, 0), (0.75, 5))
        if kept
    }
    return Evaluation(figures, rows, curves)


def _nothing(counts: Tensor, classes: Sequence[str]) -> Evaluation:
    """What a model reaches that finds no object in a whole split: COCO's code gives no figures for that."""
    rows = [ClassFigures(classes[n], int(counts[n]), 0.0, 0.0) for n in counts.nonzero().flatten().tolist()]
    curves = {overlap: [(0.0, 0.0), (1.0, 0.0)] for overlap in ("0.5", "0.75")}
    return Evaluation(dict.fromkeys(("ap", "ap50", "ap75", "ar1", "ar10", "ar100"), 0.0), rows, curves)
