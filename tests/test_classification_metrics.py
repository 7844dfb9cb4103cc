"""The metrics of a classifier are torchmetrics'."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

from orchard.tasks.image_classification.metrics import classification_metrics


@pytest.mark.parametrize(("count", "classes"), [(1000, 10), (50, 3), (7, 12)])
@pytest.mark.parametrize("certain", [0, 20])
def test_metrics_are_torchmetrics(count: int, classes: int, certain: int) -> None:
    torch.manual_seed(count)
    logits, labels = torch.randn(count, classes) * 3, torch.randint(0, classes - 2, (count,))
    logits[:certain, 0] = 1000.0  # a confidence of exactly 1, the end of the last bin
    theirs = {
        "accuracy": MulticlassAccuracy(classes, average="micro"),
        "macro_f1": MulticlassF1Score(classes, average="macro"),
        "calibration_error": MulticlassCalibrationError(classes),
    }
    if classes > 5:
        theirs["top5_accuracy"] = MulticlassAccuracy(classes, average="micro", top_k=5)
    expected = {name: float(metric(logits, labels)) for name, metric in theirs.items()}
    assert classification_metrics(logits, labels) == pytest.approx(expected, abs=1e-6)
