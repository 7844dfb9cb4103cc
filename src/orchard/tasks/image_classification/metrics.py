"""Metrics of a classifier that has answered a whole split, equal to torchmetrics', whose import takes seconds."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15  # of confidence, arXiv:1706.04599, section 2


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, macro F1, calibration error and, of more than five classes, top-5 accuracy.

    logits: (N, K) float32; labels: (N,) int64.
    """
    found = logits.argmax(1)
    metrics = {
        "accuracy": float((found == labels).float().mean()),
        "macro_f1": macro_f1(found, labels, logits.shape[1]),
        "calibration_error": calibration_error(logits, labels),
    }
    if logits.shape[1] > 5:
        hits = (logits.topk(5).indices == labels[:, None]).any(1)
        metrics["top5_accuracy"] = float(hits.float().mean())
    return metrics


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number that logits (N, K) are divided by so that the labels (N,) are most likely (arXiv:1706.04599)."""
    from scipy.optimize import minimize_scalar  # here, as answering needs none of it

    def loss(exponent: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(exponent), labels))

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x)


def macro_f1(found: Tensor, labels: Tensor, count: int) -> float:
    """The mean F1 of the classes that are there or were named. found, labels: (N,) int64 below `count`."""
    named, there = found.bincount(minlength=count), labels.bincount(minlength=count)
    right = labels[found == labels].bincount(minlength=count)
    either = named + there > 0
    return float((2 * right / (named + there))[either].mean())


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error: the gap between accuracy and confidence in bins of confidence, by their shares."""
    confidence, found = logits.softmax(1).max(1)
    bins = torch.bucketize(confidence, torch.linspace(0, 1, BINS + 1), right=True) - 1
    off = (found == labels).double() - confidence
    gaps = torch.zeros(BINS + 1, dtype=torch.float64).index_add_(0, bins, off)
    return float(gaps.abs().sum() / len(labels))
