"""What a report says of classes, of images or of texts: confused pairs, metrics by class, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_fscore_support

from orchard.report.charts import Chart, Line, line_chart

MOST_PAIRS = 12  # of confused classes in the list


def confused_pairs(matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes most often taken for each other, in one direction each."""
    wrong = matrix * (1 - np.eye(len(classes), dtype=matrix.dtype))
    totals = matrix.sum(1)
    pairs = sorted(zip(*wrong.nonzero(), strict=True), key=lambda p: (-wrong[p], -wrong[p] / totals[p[0]]))
    return [
        {"truth": classes[t], "predicted": classes[p], "count": int(wrong[t, p]), "total": int(totals[t])}
        for t, p in pairs[:MOST_PAIRS]
    ]


def per_class(labels: np.ndarray, said: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and count of each class, weakest first; classes without a record come last."""
    columns = precision_recall_fscore_support(labels, said, labels=range(len(classes)), zero_division=0.0)
    rows = [
        {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
        for name, p, r, f, n in zip(classes, *columns, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["count"] == 0, row["f1"]))


def calibration(right: np.ndarray, confidence: np.ndarray) -> Chart | None:
    """How often the model is right where it claims a certain confidence."""
    shares, claims = calibration_curve(right, confidence.clip(0, 1), n_bins=10)
    points = [(float(c), float(s)) for c, s in zip(claims, shares, strict=True)]
    lines = [Line("as claimed", [(0.0, 0.0), (1.0, 1.0)], "ideal"), Line("as it was", points, "train", dots=True)]
    return line_chart("Calibration", lines, x_label="confidence", y_label="share correct", percent=True)
