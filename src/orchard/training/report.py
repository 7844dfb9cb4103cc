"""report.html: one run to look at, in one file that needs nothing else and asks nothing of the network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.tasks.image_classification import ImageClassification, Predictions
from orchard.training.charts import Chart, Line, line_chart, write_page
from orchard.training.pictures import look_inside, record_uri
from orchard.training.run import RunFolder, read_json, read_log

MOST_MISTAKES = 24
MOST_PAIRS = 12  # of confused classes in the list
MOST_CLASSES = 100  # in the confusion matrix; above that only the list can be read
NUMBERED = 20  # classes up to which the matrix has room for counts
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
    task: ImageClassification,
    split: ImageSplit,
    preprocess: Preprocess,
    predictions: Predictions,
    model: nn.Module,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `predictions` are those of `model` on `split`, which is the test split where there is one, else validation. All
    else is read from the run's files, so the report can be written again at any time.
    """
    metrics, facts, settings = (read_json(run / f"{name}.json") for name in ("metrics", "run", "settings"))
    log = read_log(run / "log.csv")
    judged = "test" if "test" in metrics else "validation"
    labels, said = predictions.labels.numpy(), predictions.logits.argmax(1).numpy()
    probabilities = predictions.logits.float().softmax(1).numpy()
    confidence = probabilities.max(1)
    matrix = confusion_matrix(labels, said, labels=range(len(task.classes)))
    right = int((labels == said).sum())
    words, insights = look_inside(model, split, preprocess, _choose(predictions, task.classes))
    rows = {key: (_plain(row["value"]), row["origin"]) for key, row in settings.items()}
    return write_page(
        run / "report.html",
        "report.html.jinja",
        metrics=metrics,
        facts=facts,
        judged=judged,
        figures=metrics[judged],
        count=len(labels),
        right=right,
        interval=binomtest(right, len(labels)).proportion_ci(0.95, method="wilson"),
        charts=_curves(log, metrics),
        matrix=_matrix(matrix, task.classes),
        pairs=_confused(matrix, task.classes),
        table=_per_class(labels, said, task.classes),
        calibration=_calibration(labels == said, confidence),
        mistakes=_mistakes(split, predictions, probabilities, task.classes),
        insight_words=words,
        insights=[replace(insight, key=split.key(int(insight.key))) for insight in insights],
        changed={key: row for key, row in rows.items() if row[1] != "default"},
        defaults={key: row for key, row in rows.items() if row[1] == "default"},
        command=_command(facts, settings),
    )


def _curves(log: Sequence[Mapping[str, str]], metrics: Mapping[str, Any]) -> list[Chart]:
    """Loss, accuracy, learning rate and gradient norm over the epochs."""

    def points(split: str, column: str) -> list[tuple[float, float]]:
        rows = (row for row in log if row["split"] == split and row.get(column))
        return [(float(row["epoch"]), float(row[column])) for row in rows]

    best = [float(row["epoch"]) for row in log
            if row["split"] == "validation" and int(row["step"]) == metrics["best_step"]]  # fmt: skip
    mark = (best[0], f"best epoch: {best[0]:g}") if best else None

    def both(column: str) -> list[Line]:
        return [
            Line("training", points("train", column), "train"),
            Line("validation", points("validation", column), "validation", dots=True),
        ]

    def single(label: str, column: str) -> list[Line]:
        return [Line(label, points("train", column), "train")]

    charts = [
        line_chart("Loss", both("loss"), x_label="epoch", y_label="nats", falling=True, mark=mark),
        line_chart("Accuracy", both("accuracy"), x_label="epoch", y_label="share right", percent=True, mark=mark),
        line_chart("Learning rate", single("learning rate", "lr"), x_label="epoch", y_label="rate"),
        line_chart(
            "Gradient norm", single("norm", "grad_norm"), x_label="epoch", y_label="before clipping", falling=True
        ),
    ]
    return [chart for chart in charts if chart]


def _matrix(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, Any] | None:
    """The confusion matrix as cells in pixels; None where it has too many classes to be read.

    A cell's strength is the root of its share of the row, so that single confusions stay visible.
    """
    K = len(classes)
    if K > MOST_CLASSES:
        return None
    numbered = K <= NUMBERED
    size = 40 if K <= 12 else 30 if numbered else max(520 / K, 6)
    names = [_shorten(name, 14) for name in classes]
    longest = max(len(name) for name in names)
    margin = min(18 + longest * 7, 130) if numbered else 24
    slanted = longest * 7.5 > size - 4
    cells = []
    for row, column in zip(*matrix.nonzero(), strict=True):
        count, total = int(matrix[row, column]), int(matrix[row].sum())
        says = f"{classes[row]} taken for {classes[column]}" if row != column else f"{classes[row]} recognised"
        cells.append(
            {"x": round(margin + column * size, 1), "y": round(row * size, 1), "count": count, "right": row == column,
             "strength": round((count / total) ** 0.5 * 0.92 + 0.08, 3), "says": f"{says}: {count} of {total}"}
        )  # fmt: skip
    foot = 26 if not numbered or not slanted else 20 + longest * 5
    return {"cells": cells, "size": size, "margin": margin, "names": names, "numbered": numbered, "slanted": slanted,
            "side": K * size, "width": margin + K * size + 2, "height": K * size + foot + 18, "foot": foot}  # fmt: skip


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _confused(matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes most often taken for each other, in one direction each."""
    wrong = matrix * (1 - np.eye(len(classes), dtype=matrix.dtype))
    totals = matrix.sum(1)
    pairs = sorted(zip(*wrong.nonzero(), strict=True), key=lambda p: (-wrong[p], -wrong[p] / totals[p[0]]))
    return [
        {"truth": classes[t], "predicted": classes[p], "count": int(wrong[t, p]), "total": int(totals[t])}
        for t, p in pairs[:MOST_PAIRS]
    ]


def _per_class(labels: np.ndarray, said: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and count of each class, weakest first; classes without a picture come last."""
    columns = precision_recall_fscore_support(labels, said, labels=range(len(classes)), zero_division=0.0)
    rows = [
        {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
        for name, p, r, f, n in zip(classes, *columns, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["count"] == 0, row["f1"]))


def _calibration(right: np.ndarray, confidence: np.ndarray) -> Chart | None:
    """How often the model is right where it claims a certain confidence."""
    shares, claims = calibration_curve(right, confidence.clip(0, 1), n_bins=10)
    points = [(float(c), float(s)) for c, s in zip(claims, shares, strict=True)]
    lines = [Line("as claimed", [(0.0, 0.0), (1.0, 1.0)], "ideal"), Line("as it was", points, "train", dots=True)]
    return line_chart("Calibration", lines, x_label="confidence", y_label="share right", percent=True)


def _mistakes(
    split: ImageSplit, predictions: Predictions, probabilities: np.ndarray, classes: Sequence[str]
) -> list[Mistake]:
    """The wrong answers the model was surest of."""
    wrong = (~predictions.correct).nonzero().flatten().tolist()
    wrong.sort(key=lambda place: -float(probabilities[place].max()))
    mistakes = []
    for place in wrong[:MOST_MISTAKES]:
        index, truth = int(predictions.indices[place]), int(predictions.labels[place])
        likeliest = int(probabilities[place].argmax())
        mistakes.append(
            Mistake(
                split.key(index), record_uri(split, index), classes[truth], classes[likeliest],
                float(probabilities[place, likeliest]), float(probabilities[place, truth]),
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


def _plain(value: Any) -> str:
    """A setting as it is given on the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _command(facts: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> str:
    """The command that trains the same again."""
    words = ["orchard", "train", str(facts["model"]), "--data", str(facts["data"]["source"])]
    if facts.get("recipe"):
        words += ["--recipe", str(facts["recipe"])]
    for key, row in settings.items():
        if row["origin"] == "command" and key not in ("model", "data.source"):
            words += ["--set", f"{key}={_plain(row['value'])}"]
    return shlex.join(words)
