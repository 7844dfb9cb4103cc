"""The report of a model that gives numbers: predicted against true, errors of each number, worst images, attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.report.charts import Chart, scatter_chart, short
from orchard.report.pictures import record_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_classification.image_objective import Predictions
from orchard.tasks.image_classification.regression import Regression, by_number
from orchard.tasks.image_classification.report_parts import insights, own_tiles
from orchard.training.run import RunFolder

MOST_POINTS = 400  # of a scatter
MOST_SCATTERS = 12
MOST_WORST = 24
INSIGHTS = 6


def write_report(
    run: RunFolder,
    *,
    objective: Regression,
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
    labels, values = predictions.labels.numpy(), objective.values(predictions).numpy()
    shown = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), MOST_POINTS)).round().astype(int))
    unit = "in the unit of the data" if len(objective.classes) == 1 else "mean over the numbers, each in its unit"
    tiles = [
        Tile(f"{report_split.capitalize()} MAE", short(figures["mae"]), f"mean absolute error, {unit}"),
        Tile("MAE of the median", short(figures["median_mae"]), "always answering the median of the training split"),
        Tile("RMSE", short(figures["rmse"]), "root of the mean squared error"),
        Tile("R²", short(figures["r2"]), "share of the variance that is explained"),
        Tile("Loss", short(figures["loss"]), "smooth L1 of standardised numbers"),
    ]
    tiles += own_tiles(objective, figures)
    return write_run_page(
        run,
        Path(__file__).with_name("regression_report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "standardised", falling=True),
            Curve("Mean absolute error", "mae", "unit of the data", falling=True),
        ],
        more_facts={"numbers": len(objective.classes)},
        report_split=report_split,
        count=len(labels),
        shown=len(shown),
        error=figures["mae"],
        scatters=_scatters(objective, labels[shown], values[shown]),
        table=_by_number(objective, labels, values),
        worst=_worst(split, predictions, objective, values),
        **insights(model, split, preprocess, _choose(predictions, values)),
    )


def _scatters(objective: Regression, labels: np.ndarray, values: np.ndarray) -> list[Chart]:
    """Of each number, true ones from left to right and predicted ones upwards."""
    found = []
    for k, name in enumerate(objective.classes[:MOST_SCATTERS]):
        points = [(float(truth), float(said)) for truth, said in zip(labels[:, k], values[:, k], strict=True)]
        found.append(scatter_chart(name, points, x_label="true", y_label="predicted"))
    return [chart for chart in found if chart]


def _by_number(objective: Regression, labels: np.ndarray, values: np.ndarray) -> list[dict[str, Any]]:
    errors, median = by_number(values, labels), np.abs(labels - objective.median.numpy()).mean(0)
    return [
        {"name": name, "median_mae": median[k], "low": labels[:, k].min(), "high": labels[:, k].max(),
         **{error: found[k] for error, found in errors.items()}}
        for k, name in enumerate(objective.classes)
    ]  # fmt: skip


def _worst(
    split: ImageSplit, predictions: Predictions, objective: Regression, values: np.ndarray
) -> list[dict[str, Any]]:
    """The images with the largest errors, each by the number that is furthest off in its standard deviations."""
    labels = predictions.labels.numpy()
    off = np.abs(values - labels) / objective.std.numpy()
    found = []
    for place in np.argsort(-off.max(1), kind="stable")[:MOST_WORST]:
        index, k = int(predictions.indices[place]), int(off[place].argmax())
        found.append(
            {"key": split.key(index), "picture": record_uri(split, index), "name": objective.classes[k],
             "truth": float(labels[place, k]), "predicted": float(values[place, k])}
        )  # fmt: skip
    return found


def _choose(predictions: Predictions, values: np.ndarray) -> list[tuple[int, str, str]]:
    """Images from the smallest to the largest number: index in the split, the true numbers, the predicted ones."""
    order = predictions.labels[:, 0].argsort(stable=True)
    places = [int(order[n]) for n in sorted({round(n) for n in np.linspace(0, len(order) - 1, INSIGHTS)})]

    def said(numbers: np.ndarray) -> str:
        return ", ".join(f"{value:.4g}" for value in numbers)

    return [(int(predictions.indices[p]), said(predictions.labels[p].numpy()), said(values[p])) for p in places]
