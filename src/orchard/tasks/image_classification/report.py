"""The report of a classifier: confusion matrix, per-class metrics, mistakes, attention or feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix
from torch import nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.report.charts import percent, short
from orchard.report.classes import calibration, confused_pairs, per_class
from orchard.report.confusion import confusion_cells
from orchard.report.pictures import record_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_classification.image_objective import Predictions
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.reconstructions import filters_and_reconstructions
from orchard.tasks.image_classification.report_parts import insights, own_tiles
from orchard.training.run import RunFolder

MOST_MISTAKES = 24
INSIGHTS = 6


@dataclass(frozen=True)
class Mistake:
    key: str
    picture: str  # data URI
    truth: str
    predicted: str
    confidence: float  # probability of what was predicted
    truth_probability: float


def write_report(
    run: RunFolder,
    *,
    objective: ImageClassification,
    split: ImageSplit,
    preprocess: Preprocess,
    predictions: Predictions,
    model: nn.Module,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `predictions` are those of `model` on `split`, which is the test split where there is one, else validation. All
    else is read from the run's files, so the report can be written again at any time.
    """
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    labels, said = predictions.labels.numpy(), predictions.logits.argmax(1).numpy()
    probabilities = (predictions.logits.float() / objective.temperature).softmax(1).numpy()
    confidence = probabilities.max(1)
    matrix = confusion_matrix(labels, said, labels=range(len(objective.classes)))
    right = int((labels == said).sum())
    chosen = _choose(predictions, objective.classes)
    interval = binomtest(right, len(labels)).proportion_ci(0.95, method="wilson")
    between = f"95 % interval {percent(interval.low)} to {percent(interval.high)}, from {len(labels):,} images; "
    between += f"always naming the most frequent class: {percent(predictions.majority)}"
    tiles = [
        Tile(f"{report_split.capitalize()} accuracy", percent(figures["accuracy"]), between),
        Tile("Macro F1", percent(figures["macro_f1"]), "mean over the classes"),
        Tile("Calibration error", percent(figures["calibration_error"]), "between confidence and accuracy"),
        Tile("Loss", short(figures["loss"]), "nats per image"),
    ]
    if "top5_accuracy" in figures:
        tiles.insert(1, Tile("Top-5 accuracy", percent(figures["top5_accuracy"]), "true class among the first five"))
    tiles += own_tiles(objective, figures)
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "nats", falling=True),
            Curve("Accuracy", "accuracy", "share correct", percent=True),
            Curve("Reconstruction error in pretraining", "reconstruction_error", "nats per unit", falling=True),
        ],
        more_facts={"classes": len(objective.classes)},
        report_split=report_split,
        count=len(labels),
        right=right,
        matrix=confusion_cells(matrix, objective.classes),
        pairs=confused_pairs(matrix, objective.classes),
        table=per_class(labels, said, objective.classes),
        calibration=calibration(labels == said, confidence),
        mistakes=_mistakes(split, predictions, probabilities, objective.classes),
        generative=filters_and_reconstructions(model, split, preprocess, [index for index, _, _ in chosen]),
        **insights(model, split, preprocess, chosen),
    )


def _mistakes(
    split: ImageSplit, predictions: Predictions, probabilities: np.ndarray, classes: Sequence[str]
) -> list[Mistake]:
    """The wrong answers the model was surest of."""
    wrong = (~predictions.correct).nonzero().flatten().tolist()
    wrong.sort(key=lambda place: -float(probabilities[place].max()))
    mistakes = []
    for place in wrong[:MOST_MISTAKES]:
        index, truth = int(predictions.indices[place]), int(predictions.labels[place])
        most_likely = int(probabilities[place].argmax())
        mistakes.append(
            Mistake(
                split.key(index), record_uri(split, index), classes[truth], classes[most_likely],
                float(probabilities[place, most_likely]), float(probabilities[place, truth]),
            )
        )  # fmt: skip
    return mistakes


def _choose(predictions: Predictions, classes: Sequence[str]) -> list[tuple[int, str, str]]:
    """A picture each of up to INSIGHTS classes, spread over all: index in the split, truth, prediction."""
    said = predictions.logits.argmax(1)
    firsts: dict[int, int] = {}
    for place, label in enumerate(predictions.labels.tolist()):
        firsts.setdefault(label, place)
    present = sorted(firsts)
    wanted = sorted({round(i) for i in np.linspace(0, len(present) - 1, INSIGHTS)})
    places = [firsts[present[i]] for i in wanted]
    return [(int(predictions.indices[p]), classes[int(predictions.labels[p])], classes[int(said[p])]) for p in places]
