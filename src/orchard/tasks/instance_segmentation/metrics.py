"""Average precision and recall of masks, and of their boxes, as COCO defines them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from orchard.data.boxes.contracts import DetectionSplit, Objects
from orchard.tasks.instance_segmentation.objective import InstancePredictions
from orchard.tasks.object_detection.metrics import Evaluation, evaluate_boxes, evaluate_shapes


def evaluate_instances(predictions: InstancePredictions, split: DetectionSplit, classes: Sequence[str]) -> Evaluation:
    """Compare masks with those of a split's objects; figures of the boxes are called `box_ap` and so on.

    Everything else is of masks; the area of an object is that of its mask.
    """
    boxes = evaluate_boxes(predictions, split, classes).figures
    masks = evaluate_shapes(_masks(predictions, split), classes, "segm")
    of_boxes = {f"box_{name}": value for name, value in boxes.items() if name != "loss"}
    return Evaluation({"loss": boxes["loss"], **masks.figures, **of_boxes}, masks.classes, masks.curves)


def _masks(
    predictions: InstancePredictions, split: DetectionSplit
) -> Iterator[tuple[Objects, dict[str, Tensor], dict[str, Tensor]]]:
    """Objects, their masks and what was said, image by image: the pixels of one image at a time."""
    for n, index in enumerate(predictions.indices.tolist()):
        objects = split.objects(index)
        if objects.masks is None:
            raise ValueError("expected objects with masks")
        there = predictions.scores[n] >= 0
        said = {"scores": predictions.scores[n][there], "labels": predictions.labels[n][there]}
        yield objects, {"masks": objects.masks.dense()}, said | {"masks": predictions.masks[n].dense()}
