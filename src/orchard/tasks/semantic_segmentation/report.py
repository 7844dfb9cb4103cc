"""The report of a network that segments: IoU by class, confusion matrix, the images it does worst and best on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.masks.colours import overlay
from orchard.data.masks.contracts import Colour, MaskData
from orchard.data.masks.loader import MaskLoader
from orchard.report.charts import percent, short
from orchard.report.confusion import confusion_cells
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.semantic_segmentation.metrics import iou_of
from orchard.tasks.semantic_segmentation.objective import Predictions, logits_at
from orchard.training.run import RunFolder

SHOWN = 6  # images of each kind


@dataclass(frozen=True)
class Row:
    """One class."""

    name: str
    colour: str
    iou: float
    accuracy: float  # of its pixels, the share that was found
    precision: float  # of the pixels that were said to be of it, the share that is
    share: float  # of all pixels


@dataclass(frozen=True)
class Looked:
    """One image, its true mask and the predicted one over it, as data URIs."""

    key: str
    image: str
    truth: str
    said: str
    iou: float


def write_report(
    run: RunFolder, *, data: MaskData, predictions: Predictions, model: nn.Module, loader: MaskLoader
) -> Path:
    """Write report.html about a run whose other files are written, and return its path; `loader` is of the split of the
    report, in evaluation."""
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    count = len(predictions.indices)
    order = predictions.ious.nan_to_num(1.0).argsort(stable=True).tolist()
    spread = [round(place) for place in np.linspace(0, count - 1, min(SHOWN, count))]
    tiles = [
        Tile(f"{report_split.capitalize()} mIoU", percent(figures["miou"]), "mean over the classes"),
        Tile("Pixel accuracy", percent(figures["pixel_accuracy"]), "of all pixels"),
        Tile("Mean accuracy", percent(figures["mean_accuracy"]), "mean over the classes"),
        Tile("Boundary F1", percent(figures.get("boundary_f1")), "within 0.75 % of the diagonal"),
        Tile("Loss", short(figures["loss"]), "nats per pixel"),
    ]
    shares = (100 * predictions.matrix / predictions.matrix.sum(1, keepdim=True).clamp(min=1)).round().long()
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "nats per pixel", falling=True),
            Curve("mIoU", "miou", "mean over the classes", percent=True),
            Curve("Pixel accuracy", "pixel_accuracy", "share of pixels", percent=True),
            Curve("Mean accuracy", "mean_accuracy", "mean over the classes", percent=True),
        ],
        more_facts={"classes": len(data.classes)},
        report_split=report_split,
        count=count,
        miou=figures["miou"],
        accuracy=figures["pixel_accuracy"],
        matrix=confusion_cells(shares.numpy(), data.classes),
        table=_rows(predictions.matrix, data.classes, data.colours),
        worst=_look(predictions, order[:SHOWN], data, model, loader),
        best=_look(predictions, order[: -SHOWN - 1 : -1], data, model, loader),
        typical=_look(predictions, spread, data, model, loader),
    )


def _rows(matrix: torch.Tensor, classes: Sequence[str], colours: Sequence[Colour]) -> list[Row]:
    """The classes that are true or said, weakest first."""
    right, real, said = matrix.diagonal().double(), matrix.sum(1), matrix.sum(0)
    columns = (iou_of(matrix), right / real, right / said, real / matrix.sum())
    rows = [
        Row(name, "#{:02x}{:02x}{:02x}".format(*colour), *values)
        for name, colour, *values in zip(classes, colours, *(column.tolist() for column in columns), strict=True)
    ]
    return sorted((row for row in rows if row.iou == row.iou), key=lambda row: row.iou)


def _look(
    predictions: Predictions, places: Sequence[int], data: MaskData, model: nn.Module, loader: MaskLoader
) -> list[Looked]:
    """Some images with their true and predicted masks; the model answers again, as masks are not kept."""
    model.eval()
    device = next(model.parameters()).device
    found = []
    for place in places:
        index = int(predictions.indices[place])
        record = loader.split.record(index)
        batch = loader.make(0, np.array([index]), slice(None)).to(device)
        said = logits_at(model, batch.images, batch.masks.shape[1:])[0].argmax(0).byte().cpu()
        image = to_pil_image(record.image)
        drawn = [overlay(image, mask.numpy(), data.colours) for mask in (record.mask, said)]
        uris = [data_uri(one, longest=320) for one in (image, *drawn)]
        found.append(Looked(record.key, uris[0], uris[1], uris[2], float(predictions.ious[place])))
    return found
