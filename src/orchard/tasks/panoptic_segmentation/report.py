"""The report of panoptic segmentation: quality by class, the images it does worst on, truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.panoptic.contracts import PanopticData
from orchard.data.panoptic.drawing import draw_segments, segment_colours
from orchard.data.panoptic.loader import PanopticLoader
from orchard.report.charts import percent, short
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.panoptic_segmentation.metrics import MATCHED, MISSED, WRONG, qualities
from orchard.tasks.panoptic_segmentation.objective import PanopticSegmentation, Predictions
from orchard.training.run import RunFolder

SHOWN = 6  # images of each kind


@dataclass(frozen=True)
class Row:
    """One class."""

    name: str
    kind: str
    pq: float
    sq: float
    rq: float
    matched: int
    missed: int
    wrong: int


@dataclass(frozen=True)
class Seen:
    """One image, its true segments and the predicted ones, as data URIs."""

    key: str
    image: str
    truth: str
    said: str
    pq: float


def write_report(
    run: RunFolder,
    *,
    data: PanopticData,
    predictions: Predictions,
    model: nn.Module,
    loader: PanopticLoader,
    objective: PanopticSegmentation,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path; `loader` is of the split of the
    report, in evaluation."""
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    count = len(predictions.indices)
    worst = predictions.qualities.nan_to_num(1.0).argsort(stable=True)[:SHOWN].tolist()
    spread = [round(place) for place in np.linspace(0, count - 1, min(SHOWN, count))]
    tiles = [
        Tile(f"{report_split.capitalize()} PQ", percent(figures["pq"]), "panoptic quality, mean over the classes"),
        Tile("PQ of things", percent(figures.get("pq_things")), "what is counted"),
        Tile("PQ of stuff", percent(figures.get("pq_stuff")), "what is not"),
        Tile("SQ", percent(figures["sq"]), "mean IoU of matched segments"),
        Tile("RQ", percent(figures["rq"]), "share of segments that match (F1)"),
        Tile("Loss", short(figures["loss"]), "sum of all"),
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "weighted sum", falling=True),
            Curve("PQ", "pq", "mean over the classes", percent=True),
            Curve("PQ of things", "pq_things", "mean over the classes", percent=True),
            Curve("PQ of stuff", "pq_stuff", "mean over the classes", percent=True),
            Curve("Classes' cross entropy", "label_loss", "last layer", falling=True),
            Curve("Difference of boxes", "l1_loss", "sum of four shares", falling=True),
            Curve("1 - generalised overlap", "giou_loss", "mean", falling=True),
            Curve("Focal loss of masks", "focal_loss", "mean over pixels", falling=True),
            Curve("Dice loss of masks", "dice_loss", "mean over segments", falling=True),
            Curve("Matched queries of the wrong class", "class_error", "share", percent=True),
        ],
        more_facts={"classes": f"{sum(data.things)} of things, {len(data.things) - sum(data.things)} of stuff"},
        report_split=report_split,
        count=count,
        pq=figures["pq"],
        table=_rows(predictions.counts.numpy(), data),
        worst=_look(predictions, worst, data, model, loader, objective),
        typical=_look(predictions, spread, data, model, loader, objective),
    )


def _rows(counts: np.ndarray, data: PanopticData) -> list[Row]:
    """The classes that are true or said, weakest first."""
    found = qualities(counts)
    rows = [
        Row(
            name, "thing" if data.things[n] else "stuff", float(found.pq[n]), float(found.sq[n]), float(found.rq[n]),
            *(int(counts[kind, n]) for kind in (MATCHED, MISSED, WRONG)),
        )
        for n, name in enumerate(data.classes)
        if not np.isnan(found.pq[n])
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row.pq)


@torch.no_grad()
def _look(
    predictions: Predictions,
    places: Sequence[int],
    data: PanopticData,
    model: nn.Module,
    loader: PanopticLoader,
    objective: PanopticSegmentation,
) -> list[Seen]:
    """Some images with their true and predicted segments; the model answers again, as maps are not kept."""
    model.eval()
    device = next(model.parameters()).device
    found = []
    for place in places:
        index = int(predictions.indices[place])
        record = loader.split.record(index)
        said, _ = objective.judge(model, loader.make(0, np.array([index]), slice(None)).to(device))
        image = to_pil_image(record.image).convert("RGB")
        uris = [data_uri(image, longest=320)]
        for map, labels in ((record.segments.map.numpy(), record.segments.labels), (said.map, said.labels)):
            colours, words = segment_colours(labels.tolist(), data.things), [data.classes[label] for label in labels]
            uris.append(data_uri(draw_segments(image, map, colours, words), longest=320))
        found.append(Seen(record.key, uris[0], uris[1], uris[2], float(predictions.qualities[place])))
    return found
