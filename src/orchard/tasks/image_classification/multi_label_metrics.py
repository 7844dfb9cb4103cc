"""Metrics of a model that gives each class of an image a probability, by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HALF = 0.5  # the threshold where nothing says a better one


@dataclass(frozen=True)
class AveragePrecisions:
    """Average precision of each class (K,); not a number for one that no image has."""

    by_class: np.ndarray

    @property
    def mean(self) -> float:
        """Over the classes that some image has (macro mAP); not a number where there is none."""
        known = self.by_class[np.isfinite(self.by_class)]
        return float(known.mean()) if len(known) else float("nan")


def average_precisions(probabilities: np.ndarray, labels: np.ndarray) -> AveragePrecisions:
    """Of probabilities (N, K) and labels (N, K) of 0 and 1."""
    from sklearn.metrics import average_precision_score  # here, as predicting needs none of it

    there = (labels > HALF).sum(0)
    found = [
        average_precision_score(labels[:, k], probabilities[:, k]) if there[k] else np.nan for k in range(len(there))
    ]
    return AveragePrecisions(np.array(found))


def multi_label_metrics(probabilities: np.ndarray, labels: np.ndarray, thresholds: Sequence[float]) -> dict[str, float]:
    """Macro mAP; macro and micro F1 at the thresholds; the share of images with all labels right (subset accuracy).

    A class that is neither there nor answered has no F1, and is left out of the mean.
    """
    from sklearn.metrics import accuracy_score, f1_score

    said, there = answered(probabilities, thresholds), labels > HALF
    by_class = f1_score(there, said, average=None, zero_division=np.nan)
    known = by_class[np.isfinite(by_class)]
    return {
        "map": average_precisions(probabilities, labels).mean,
        "macro_f1": float(known.mean()) if len(known) else float("nan"),
        "micro_f1": float(f1_score(there, said, average="micro", zero_division=0.0)),
        "subset_accuracy": float(accuracy_score(there, said)),
    }


def answered(probabilities: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """(N, K) bool: which classes are named."""
    found: np.ndarray = probabilities >= np.asarray(thresholds)
    return found


def choose_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """For each class the threshold with the best F1: half way between the probabilities that it separates, and of
    equally good ones the nearest to a half. A half for a class that no image has, or every one.
    """
    return tuple(_threshold(probabilities[:, k], labels[:, k] > HALF) for k in range(labels.shape[1]))


def _threshold(probabilities: np.ndarray, there: np.ndarray) -> float:
    from sklearn.metrics import precision_recall_curve

    if there.all() or not there.any() or not np.isfinite(probabilities).all():
        return HALF
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, levels = precision_recall_curve(there, probabilities.astype(np.float64))
    precision, recall = precision[:-1], recall[:-1]  # the last point has no threshold
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    below = np.concatenate([[0.0], levels[:-1]])
    between = (below + levels) / 2
    between[(below < HALF) & (levels >= HALF)] = HALF  # the same images are named
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(between[best[np.abs(between[best] - HALF).argmin()]])
