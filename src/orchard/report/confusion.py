"""A confusion matrix as the report draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_CLASSES = 100  # above that only a list can be read
NUMBERED = 20  # classes up to which the matrix has room for counts


def confusion_cells(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, Any] | None:
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
        says = f"{classes[row]} predicted as {classes[column]}" if row != column else f"{classes[row]} correct"
        cells.append(
            {"x": round(margin + column * size, 1), "y": round(row * size, 1), "count": count, "right": row == column,
             "strength": round((count / total) ** 0.5 * 0.92 + 0.08, 3), "says": f"{says}: {count} of {total}"}
        )  # fmt: skip
    foot = 26 if not numbered or not slanted else 20 + longest * 5
    return {"cells": cells, "size": size, "margin": margin, "names": names, "numbered": numbered, "slanted": slanted,
            "side": K * size, "width": margin + K * size + 2, "height": K * size + foot + 18, "foot": foot}  # fmt: skip


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
