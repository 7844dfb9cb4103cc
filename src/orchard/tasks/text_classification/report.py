"""The report of a classifier of texts: confusions, metrics by class, mistakes and their words, lengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix
from torch import nn

from orchard.data.labelled_text.contracts import LabelledTexts
from orchard.data.targets import SeveralClasses
from orchard.data.text_inputs import TextInputs
from orchard.report.charts import percent, scatter_chart, short
from orchard.report.classes import calibration, confused_pairs, per_class
from orchard.report.confusion import confusion_cells
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_classification.image_objective import ImageObjective, Predictions
from orchard.tasks.image_classification.multi_label import MultiLabel, probabilities
from orchard.tasks.image_classification.multi_label_metrics import HALF, answered
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.regression import Regression
from orchard.tasks.text_classification.words import Word, attribute
from orchard.training.run import RunFolder

MOST_MISTAKES = 16
MOST_POINTS = 400  # of a scatter
CUT = 600  # characters of a text that are shown
LENGTHS = 5  # groups of texts by their length
TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class Mistake:
    """A wrong answer. `words` are the text's own with what each did for the answer; none where that is not known."""

    key: str
    text: str
    pair: str | None
    said: str
    truth: str
    how_sure: str
    words: tuple[Word, ...] = ()


def write_text_report(
    run: RunFolder,
    *,
    labels: ImageObjective,
    split: LabelledTexts,
    inputs: TextInputs,
    predictions: Predictions,
    model: nn.Module,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path."""
    metrics = run.metrics()
    figures, name = metrics.reported, metrics.report_split
    lengths = np.array([inputs.tokens(*split.text(index)) for index in range(len(split))])[predictions.indices.numpy()]
    cut = int((lengths > inputs.length).sum())
    tile = Tile(
        "Cut", percent(cut / len(lengths)), f"of the texts are longer than the {inputs.length} tokens that are read"
    )
    write = {ImageClassification: _classes, MultiLabel: _several, Regression: _numbers}[type(labels)]
    tiles, curves, content = write(labels, split, inputs, predictions, model, figures, name, lengths)
    return write_run_page(
        run, TEMPLATE, tiles=[*tiles, tile], curves=[Curve("Loss", "loss", "nats", falling=True), *curves],
        more_facts={"texts in a record": 2 if split.paired else 1}, report_split=name, count=len(lengths),
        **{"matrix": None, "pairs": (), "table": (), "calibration": None, "scatters": (), "by_length": (), **content},
    )  # fmt: skip


def _classes(
    labels: Any, split: LabelledTexts, inputs: TextInputs, predictions: Predictions, model: nn.Module,
    figures: Any, name: str, lengths: np.ndarray,
) -> tuple[list[Tile], list[Curve], dict[str, Any]]:  # fmt: skip
    true, classes = predictions.labels.numpy(), labels.classes
    shares = (predictions.logits / labels.temperature).softmax(1).numpy()
    said, sure = shares.argmax(1), shares.max(1)
    right = int((true == said).sum())
    interval = binomtest(right, len(true)).proportion_ci(0.95, method="wilson")
    between = f"95 % interval {percent(interval.low)} to {percent(interval.high)}, from {len(true):,} texts; "
    between += f"always naming the most frequent class: {percent(predictions.majority)}"
    tiles = [
        Tile(f"{name.capitalize()} accuracy", percent(figures["accuracy"]), between),
        Tile("Macro F1", percent(figures["macro_f1"]), "mean over the classes"),
        Tile("Calibration error", percent(figures["calibration_error"]), "between confidence and accuracy"),
        Tile("Loss", short(figures["loss"]), "nats per text"),
    ]
    matrix = confusion_matrix(true, said, labels=range(len(classes)))
    wrong = sorted((true != said).nonzero()[0].tolist(), key=lambda place: -float(sure[place]))
    mistakes = [
        _mistake(
            split, inputs, model, int(predictions.indices[place]), int(said[place]), classes[said[place]],
            classes[true[place]],
            f"{percent(float(sure[place]))}, true class {percent(float(shares[place, true[place]]))}",
        )
        for place in wrong[:MOST_MISTAKES]
    ]  # fmt: skip
    content = {
        "matrix": confusion_cells(matrix, classes), "pairs": confused_pairs(matrix, classes),
        "table": per_class(true, said, classes), "calibration": calibration(true == said, sure), "mistakes": mistakes,
        "wrong": len(wrong), "by_length": _by_length(true == said, lengths), "lead": f"{right:,} of {len(true):,}",
    }  # fmt: skip
    return tiles, [Curve("Accuracy", "accuracy", "share correct", percent=True)], content


def _several(
    labels: Any, split: LabelledTexts, inputs: TextInputs, predictions: Predictions, model: nn.Module,
    figures: Any, name: str, lengths: np.ndarray,
) -> tuple[list[Tile], list[Curve], dict[str, Any]]:  # fmt: skip
    shares, there = probabilities(predictions), predictions.labels.numpy() > HALF
    said = answered(shares, labels.thresholds)
    tiles = [
        Tile(f"{name.capitalize()} mAP", percent(figures["map"]), f"of a constant: {percent(figures['constant_map'])}"),
        Tile("Macro F1", percent(figures["macro_f1"]), "mean over the classes, at their thresholds"),
        Tile("All labels right", percent(figures["subset_accuracy"]), "share of the texts"),
    ]  # fmt: skip
    places, columns = (there != said).nonzero()
    order = np.argsort(-np.abs(shares - np.array(labels.thresholds))[places, columns], kind="stable")
    mistakes = [
        _mistake(
            split, inputs, model, int(predictions.indices[places[n]]), int(columns[n]),
            f"{'answered' if said[places[n], columns[n]] else 'missed'}: {labels.classes[columns[n]]}",
            SeveralClasses.words(there[places[n]], labels.classes), percent(float(shares[places[n], columns[n]])),
        )
        for n in order[:MOST_MISTAKES]
    ]  # fmt: skip
    right = (there == said).all(1)
    content = {"mistakes": mistakes, "wrong": int((~right).sum()), "by_length": _by_length(right, lengths),
               "lead": f"{int(right.sum()):,} of {len(right):,}"}  # fmt: skip
    return tiles, [Curve("Mean average precision", "map", "macro", percent=True)], content


def _numbers(
    labels: Any, split: LabelledTexts, inputs: TextInputs, predictions: Predictions, model: nn.Module,
    figures: Any, name: str, lengths: np.ndarray,
) -> tuple[list[Tile], list[Curve], dict[str, Any]]:  # fmt: skip
    values, true = labels.values(predictions).numpy(), predictions.labels.numpy()
    tiles = [
        Tile(f"{name.capitalize()} MAE", short(figures["mae"]), "mean absolute error, in the unit of the data"),
        Tile("MAE of the median", short(figures["median_mae"]), "always answering the median of the training texts"),
        Tile("Spearman", short(figures["spearman"]), "correlation of ranks"),
        Tile("Pearson", short(figures["pearson"]), "correlation"),
    ]
    shown = np.unique(np.linspace(0, len(true) - 1, min(len(true), MOST_POINTS)).round().astype(int))
    scatters = [
        scatter_chart(
            column,
            list(zip(true[shown, k].tolist(), values[shown, k].tolist(), strict=True)),
            x_label="true",
            y_label="predicted",
        )
        for k, column in enumerate(labels.classes[:6])
    ]
    errors = np.abs(values - true).max(1)
    mistakes = [
        _mistake(split, inputs, model, int(predictions.indices[place]), None, _said(values[place]), _said(true[place]),
                 f"off by {errors[place]:.3g}")
        for place in np.argsort(-errors)[:MOST_MISTAKES].tolist()
    ]  # fmt: skip
    content = {"scatters": scatters, "mistakes": mistakes, "wrong": len(true), "lead": f"MAE {short(figures['mae'])}"}
    return tiles, [Curve("Mean absolute error", "mae", "unit of the data", falling=True)], content


def _said(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _mistake(
    split: LabelledTexts, inputs: TextInputs, model: nn.Module, index: int, column: int | None, said: str, truth: str,
    how_sure: str,
) -> Mistake:  # fmt: skip
    text, pair = split.text(index)
    words = attribute(model, inputs, text, pair, column or 0)
    return Mistake(split.key(index), _short(text), None if pair is None else _short(pair), said, truth, how_sure, words)


def _short(text: str) -> str:
    return text if len(text) <= CUT else text[:CUT] + " …"


def _by_length(right: np.ndarray, lengths: np.ndarray) -> list[dict[str, Any]]:
    """The share of right answers of texts from short to long."""
    groups = np.array_split(np.argsort(lengths, kind="stable"), min(LENGTHS, len(lengths)))
    return [
        {"from": int(lengths[group].min()), "to": int(lengths[group].max()), "count": len(group),
         "right": float(right[group].mean())}
        for group in groups
    ]  # fmt: skip
