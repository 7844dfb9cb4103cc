"""The report of a model with several labels for an image: average precision and F1 of classes, mistakes, attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.targets import SeveralClasses
from orchard.report.charts import percent, short
from orchard.report.pictures import record_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_classification.image_objective import Predictions
from orchard.tasks.image_classification.multi_label import MultiLabel, probabilities
from orchard.tasks.image_classification.multi_label_metrics import HALF, answered, average_precisions
from orchard.tasks.image_classification.report_parts import insights, own_tiles
from orchard.training.run import RunFolder

MOST_MISTAKES = 24
INSIGHTS = 6


def write_report(
    run: RunFolder,
    *,
    objective: MultiLabel,
    split: ImageSplit,
    preprocess: Preprocess,
    predictions: Predictions,
    model: nn.Module,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `predictions` are those of `model` on `split`, which is the test split where there is one, else validation.
    """
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    labels, shares = predictions.labels.numpy(), probabilities(predictions)
    there, said = labels > HALF, answered(shares, objective.thresholds)
    constant = f"macro; always the same answer has {percent(figures['constant_map'])}"
    tiles = [
        Tile(f"{report_split.capitalize()} mAP", percent(figures["map"]), constant),
        Tile("Macro F1", percent(figures["macro_f1"]), "mean over the classes, at their thresholds"),
        Tile("Micro F1", percent(figures["micro_f1"]), "of all answers together"),
        Tile("All labels right", percent(figures["subset_accuracy"]), "share of the images"),
        Tile("Loss", short(figures["loss"]), "nats per class"),
    ]
    tiles += own_tiles(objective, figures)
    return write_run_page(
        run,
        Path(__file__).with_name("multi_label_report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "nats", falling=True),
            Curve("Mean average precision", "map", "macro", percent=True),
        ],
        more_facts={"classes": len(objective.classes)},
        report_split=report_split,
        count=len(labels),
        right=int((there == said).all(1).sum()),
        wrong=int((there != said).sum()),
        table=_per_class(objective, shares, labels, said),
        mistakes=_mistakes(split, predictions, objective, shares, there, said),
        **insights(model, split, preprocess, _choose(predictions, there, said, objective.classes)),
    )


def _per_class(objective: MultiLabel, shares: np.ndarray, labels: np.ndarray, said: np.ndarray) -> list[dict[str, Any]]:
    """What there is to say of each class, weakest first; classes without an image come last."""
    columns = precision_recall_fscore_support(labels > HALF, said, average=None, zero_division=0.0)
    ap = average_precisions(shares, labels).by_class
    rows = [
        {"name": name, "ap": float(a), "precision": float(p), "recall": float(r), "f1": float(f), "count": int(n),
         "threshold": threshold}
        for name, a, p, r, f, n, threshold in zip(objective.classes, ap, *columns, objective.thresholds, strict=True)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["count"] == 0, row["ap"] if row["count"] else 0.0))


def _mistakes(
    split: ImageSplit,
    predictions: Predictions,
    objective: MultiLabel,
    shares: np.ndarray,
    there: np.ndarray,
    said: np.ndarray,
) -> list[dict[str, Any]]:
    """The wrong answers that are furthest from the threshold of their class."""
    thresholds = np.array(objective.thresholds)
    places, classes = (there != said).nonzero()
    found = []
    for n in np.argsort(-np.abs(shares - thresholds)[places, classes], kind="stable")[:MOST_MISTAKES]:
        place, k = places[n], classes[n]
        index = int(predictions.indices[place])
        found.append(
            {"key": split.key(index), "picture": record_uri(split, index), "name": objective.classes[k],
             "what": "answered" if said[place, k] else "missed", "probability": float(shares[place, k]),
             "truth": SeveralClasses.words(there[place], objective.classes)}
        )  # fmt: skip
    return found


def _choose(
    predictions: Predictions, there: np.ndarray, said: np.ndarray, classes: Sequence[str]
) -> list[tuple[int, str, str]]:
    """Some images spread over the split: index in the split, its labels, and those that were answered."""
    places = sorted({round(n) for n in np.linspace(0, len(there) - 1, INSIGHTS)})
    return [
        (int(predictions.indices[p]), SeveralClasses.words(there[p], classes), SeveralClasses.words(said[p], classes))
        for p in places
    ]
