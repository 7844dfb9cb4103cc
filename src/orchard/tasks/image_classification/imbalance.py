"""Classes of which there are few images: weights in the loss, and how often they are drawn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from orchard.data.contracts import ImageData, LabelledData
from orchard.errors import UsageError, unknown
from orchard.tasks.image_classification.settings import LabelSettings, Settings


def class_weights(settings: LabelSettings, data: LabelledData) -> Tensor | None:
    """(K,) weights in the loss, or None where there are none.

    "balanced" weighs a class by what it lacks: where a record has one class by N / (K n), with n of N training records
    of the class; where it may have several, records of the class by (N - n) / n, so that they weigh as much as those
    without it. Raises UsageError for a class that is not there.
    """
    asked = settings.class_weights
    if asked is None:
        return None
    weights = np.ones(len(data.classes))
    if asked == "balanced":
        labels = data.splits["train"].labels
        if labels.ndim == 1:
            counts = np.bincount(labels, minlength=len(weights))
            found = len(labels) / len(weights) / np.maximum(counts, 1)
        else:
            counts = labels.sum(0)
            found = (len(labels) - counts) / np.maximum(counts, 1)
        weights = np.where(counts > 0, found, weights)
    else:
        for name, weight in asked.items():
            if name not in data.classes:
                raise UsageError(f"class_weights: {unknown('class', name, data.classes)}")
            weights[data.classes.index(name)] = weight
    return torch.tensor(weights, dtype=torch.float32)


def sampling_groups(settings: Settings, data: ImageData) -> np.ndarray | None:
    """(N,) int64: the groups of training images that are drawn equally often, if any; those of several classes count
    for the rarest of them."""
    if not settings.balanced_sampling:
        return None
    labels = data.splits["train"].labels
    return data.kind().strata(labels)
