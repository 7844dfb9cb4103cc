"""The report of a detector: precision and recall, figures per class, the images with the most errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from orchard.data.boxes.contracts import DetectionSplit, Objects
from orchard.data.boxes.drawing import Drawn, draw_boxes
from orchard.data.boxes.object_masks import Masks
from orchard.report.charts import Line, line_chart, percent, short
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.object_detection.errors import (
    BACKGROUND,
    FOREGROUND,
    KINDS,
    LIKELY,
    ImageErrors,
    Wrong,
    count_by_kind,
    errors_of_split,
)  # fmt: skip
from orchard.tasks.object_detection.metrics import Evaluation
from orchard.tasks.object_detection.objective import Predictions
from orchard.training.run import RunFolder

SHOWN = 8  # images of each kind
WORST = 2  # images of each kind of error


@dataclass(frozen=True)
class Looked:
    """One image, what is on it and what was said, as data URIs."""

    key: str
    truth: str
    said: str
    missed: int  # objects without an answer
    wrong: int  # answers without an object


@dataclass(frozen=True)
class Kind:
    """One kind of error, how often it came, and the worst of it."""

    name: str
    meaning: str
    count: int
    share: float  # of the most frequent kind
    worst: list[tuple[str, str]]  # keys and images as data URIs


@dataclass(frozen=True)
class Wording:
    """What a page calls the shapes that were compared, and what it shows beside them."""

    shapes: str = "boxes"
    ap: str = "AP"
    more_tiles: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # title → metric, note
    more_curves: Sequence[Curve] = ()


BOXES = Wording()


def write_report(
    run: RunFolder,
    split: DetectionSplit,
    predictions: Predictions,
    evaluation: Evaluation,
    classes: Sequence[str],
    wording: Wording,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path."""
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    count = len(predictions.indices)
    errors = errors_of_split(predictions, split, LIKELY)
    pairs = [(one.unmatched, len(one.errors) - one.count("missed")) for one in errors]
    worst = np.argsort([-sum(pair) for pair in pairs], kind="stable")[:SHOWN].tolist()
    spread = [round(place) for place in np.linspace(0, count - 1, min(SHOWN, count))]
    tiles = [
        Tile(
            f"{report_split.capitalize()} {wording.ap}", percent(figures["ap"]), "mean over overlaps from 0.5 to 0.95"
        ),
        Tile("AP50", percent(figures["ap50"]), "an overlap of 0.5 is enough"),
        Tile("AP75", percent(figures["ap75"]), "an overlap of 0.75 is asked for"),
        Tile("AR100", percent(figures["ar100"]), "recall, at most 100 answers an image"),
        *(Tile(title, percent(figures[name]), note) for title, (name, note) in wording.more_tiles.items()),
        Tile("Loss", short(figures["loss"]), "sum of all"),
    ]
    lines = [
        Line(f"overlap {overlap}", points, style)
        for (overlap, points), style in zip(evaluation.curves.items(), ("train", "validation"), strict=False)
    ]
    sizes = {"small": "under 32 x 32 pixels", "medium": "up to 96 x 96", "large": "larger"}
    by_size = [(name, note, *(figures.get(f"{what}_{name}") for what in ("ap", "ar"))) for name, note in sizes.items()]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "weighted sum", falling=True),
            Curve("AP", "ap", "average precision", percent=True),
            Curve("AP50", "ap50", "average precision", percent=True),
            Curve("Classes' cross entropy", "label_loss", "last layer", falling=True),
            Curve("Difference of boxes", "l1_loss", "sum of four shares", falling=True),
            Curve("1 - generalised overlap", "giou_loss", "mean", falling=True),
            Curve("Matched queries of the wrong class", "class_error", "share", percent=True),
            Curve("Anchors: is an object there?", "objectness_loss", "cross entropy", falling=True),
            Curve("Anchors: difference of boxes", "rpn_box_reg_loss", "smooth absolute value", falling=True),
            Curve("Proposals: classes", "classifier_loss", "cross entropy", falling=True),
            Curve("Proposals: difference of boxes", "box_reg_loss", "smooth absolute value", falling=True),
            *wording.more_curves,
        ],
        more_facts={"classes": len(classes), "objects": f"{sum(row.count for row in evaluation.classes):,}"},
        report_split=report_split,
        count=count,
        ap=figures["ap"],
        ap50=figures["ap50"],
        precision=line_chart("Precision and recall", lines, x_label="recall", y_label="precision", percent=True),
        table=sorted(evaluation.classes, key=lambda row: row.ap),
        sizes=[row for row in by_size if row[2] is not None],
        likely=percent(LIKELY),
        shapes=wording.shapes,
        kinds=by_kind(predictions, split, classes, errors),
        foreground=FOREGROUND,
        background=BACKGROUND,
        worst=[_look(predictions, n, split, classes, pairs[n]) for n in worst if sum(pairs[n])],
        typical=[_look(predictions, n, split, classes, pairs[n]) for n in spread],
    )


def by_kind(
    predictions: Predictions, split: DetectionSplit, classes: Sequence[str], errors: Sequence[ImageErrors]
) -> list[Kind]:
    """Errors counted by kind, each with those of the most confident answers, or the largest objects that are missed."""
    counts = count_by_kind(errors)
    most = max(*counts.values(), 1)
    rows = []
    for kind, meaning in KINDS.items():
        found = [(n, error) for n, one in enumerate(errors) for error in one.errors if error.kind == kind]

        def weight(of: tuple[int, Wrong]) -> float:
            n, error = of
            if error.answer is not None:
                return float(predictions.scores[n, error.answer])
            left, top, right, bottom = split.objects(int(predictions.indices[n])).boxes[error.object].tolist()
            return float((right - left) * (bottom - top))

        worst = [_drawn(predictions, n, split, classes, error) for n, error in nlargest(WORST, found, key=weight)]
        rows.append(Kind(kind, meaning, counts[kind], counts[kind] / most, worst))
    return rows


def _drawn(
    predictions: Predictions, place: int, split: DetectionSplit, classes: Sequence[str], error: Wrong
) -> tuple[str, str]:
    """The key of an image, and the image with the answer that is wrong and the object that it is nearest to."""
    record = split.record(int(predictions.indices[place]))
    drawn = []
    if error.object is not None:
        drawn.append(_objects(record.objects, classes)[error.object])
    if error.answer is not None:
        drawn.append(_answers(predictions, place, classes, torch.tensor([error.answer]))[0])
    return record.key, data_uri(draw_boxes(to_pil_image(record.image), drawn), longest=240)


def _look(
    predictions: Predictions, place: int, split: DetectionSplit, classes: Sequence[str], errors: tuple[int, int]
) -> Looked:
    """One image twice: with the boxes (and masks) of its objects, and with those that were said."""
    record = split.record(int(predictions.indices[place]))
    image = to_pil_image(record.image)
    said = _answers(predictions, place, classes, (predictions.scores[place] >= LIKELY).nonzero().flatten())
    pictures = [data_uri(draw_boxes(image, boxes), longest=320) for boxes in (_objects(record.objects, classes), said)]
    missed, wrong = errors
    return Looked(record.key, pictures[0], pictures[1], missed, wrong)


def _objects(objects: Objects, classes: Sequence[str]) -> list[Drawn]:
    masks = _pixels(objects.masks, len(objects.labels))
    return [
        Drawn(tuple(box), classes[label] + (" (ignored)" if ignored else ""), int(label), mask)
        for box, label, ignored, mask in zip(
            objects.boxes.tolist(), objects.labels, objects.ignored, masks, strict=True
        )
    ]  # fmt: skip


def _answers(predictions: Predictions, place: int, classes: Sequence[str], which: Tensor) -> list[Drawn]:
    """The answers for the image at a place whose places among its answers are `which`."""
    masks = predictions.masks_of(place)
    masks = None if masks is None else masks.only(which.numpy())
    columns = (column[place][which].tolist() for column in (predictions.boxes, predictions.labels, predictions.scores))
    return [
        Drawn(tuple(box), f"{classes[label]} {score:.0%}", label, mask)
        for box, label, score, mask in zip(*columns, _pixels(masks, len(which)), strict=True)
    ]


def _pixels(masks: Masks | None, count: int) -> Sequence[np.ndarray | None]:
    """Each mask (H, W), or so many times none."""
    return [None] * count if masks is None else list(masks.dense().numpy())
