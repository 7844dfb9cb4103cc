"""Which numbers does an image have? They are learned standardised and answered in their own unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.contracts import LabelledData
from orchard.errors import OrchardError
from orchard.inference.outputs import Numbers, Outputs
from orchard.tasks.image_classification.image_objective import ImageObjective, Predictions
from orchard.tasks.image_classification.settings import LabelSettings


class Regression(ImageObjective):
    """Smooth L1 (Huber's, with its corner at one standard deviation) between outputs and standardised numbers.

    Near the target it is the squared error; far from it a wrong number in the data pulls no harder than another one,
    as in the MAE by which models are selected. `mean`, `std` and `median` (K,) are those of the training split: with
    them outputs go back to the unit of the data, and the median is what the errors are compared with.
    """

    metric = "mae"
    validated = ("mae", "r2")
    taken = ("median_mae",)
    without = (
        "label_smoothing", "class_weights", "balanced_sampling", "temperature_scaling", "augmentation.mixup",
        "augmentation.cutmix",
    )  # fmt: skip
    report = "regression_report:write_report"

    def __init__(
        self,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        median: Sequence[float],
        **common: Any,
    ):
        super().__init__(classes, **common)
        self.mean, self.std, self.median = (torch.tensor(values) for values in (mean, std, median))

    @classmethod
    def for_training(cls, data: LabelledData, settings: LabelSettings, **common: Any) -> Self:
        labels = data.splits["train"].labels.astype(np.float64)
        mean, std, median = labels.mean(0), labels.std(0), np.median(labels, 0)
        if not std.all():
            name = data.classes[int(std.argmin())]
            raise OrchardError(f"{data.source}: all {len(labels)} training images have the same {name}; expected "
                               "numbers that differ")  # fmt: skip
        return cls(data.classes, mean.tolist(), std.tolist(), median.tolist(), **common)

    @classmethod
    def for_model(cls, outputs: Outputs, **common: Any) -> Self:
        assert isinstance(outputs, Numbers)
        return cls(outputs.names, outputs.mean, outputs.std, outputs.median, **common)

    @property
    def facts(self) -> dict[str, Any]:
        values = {"mean": self.mean, "std": self.std, "median": self.median}
        return {"target": "number", **{name: tensor.tolist() for name, tensor in values.items()}}

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        mean, std = self.mean.to(labels.device), self.std.to(labels.device)
        return F.smooth_l1_loss(outputs.float(), (labels - mean) / std)

    def batch_metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        mean, std = self.mean.to(labels.device), self.std.to(labels.device)
        return {"mae": (outputs.float() * std + mean - labels).abs().mean()}

    def values(self, predictions: Predictions) -> Tensor:
        """(N, K) numbers in the unit of the data."""
        return predictions.logits * self.std + self.mean

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Mean absolute error, root mean squared error and R²; of several numbers the mean, each in its own unit."""
        found = by_number(self.values(predictions).numpy(), predictions.labels.numpy())
        loss = float(self.criterion(predictions.logits, predictions.labels))
        return {"loss": loss, **{name: float(values.mean()) for name, values in found.items()}}

    def final_metrics(self, predictions: Predictions) -> dict[str, float]:
        """With the MAE of who always answers the median of the training split."""
        median = float((predictions.labels - self.median).abs().mean())
        return {**self.compute_metrics(predictions), "median_mae": median}

    def align(self, labels: Tensor, names: Sequence[str]) -> Tensor | str:
        if len(names) == len(self.classes) == 1:
            return labels
        if set(names) != set(self.classes):
            return f"gives {', '.join(self.classes)}, and {{source}} has {', '.join(names)}"
        return labels[:, [list(names).index(name) for name in self.classes]]


def by_number(values: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """MAE, RMSE and R² (K,) of predicted and true numbers (N, K); R² is not a number of fewer than two images."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score  # here, as predicting needs none

    labels, values = labels.astype(np.float64), values.astype(np.float64)
    if not np.isfinite(values).all():
        return dict.fromkeys(("mae", "rmse", "r2"), np.full(labels.shape[1], np.nan))
    raw = "raw_values"
    several = len(labels) > 1
    return {
        "mae": mean_absolute_error(labels, values, multioutput=raw),
        "rmse": np.sqrt(mean_squared_error(labels, values, multioutput=raw)),
        "r2": r2_score(labels, values, multioutput=raw) if several else np.full(labels.shape[1], np.nan),
    }
