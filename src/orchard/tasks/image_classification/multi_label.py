"""Which of K classes are on an image? Any number of them may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.augment import mix
from orchard.data.batches import ImageBatch
from orchard.data.contracts import LabelledData
from orchard.data.settings import MixSettings
from orchard.inference.outputs import Outputs
from orchard.tasks.image_classification.image_objective import ImageObjective, Predictions, unknown_class
from orchard.tasks.image_classification.imbalance import class_weights
from orchard.tasks.image_classification.multi_label_metrics import (
    HALF,
    average_precisions,
    choose_thresholds,
    multi_label_metrics,
)  # fmt: skip
from orchard.tasks.image_classification.settings import LabelSettings


class MultiLabel(ImageObjective):
    """Binary cross entropy of every class; a class is answered from its own threshold on.

    `thresholds` (K,) are probabilities. They are chosen on the validation split, where each gives its class the best
    F1; until then they are a half.
    """

    metric = "map"
    validated = ("map", "macro_f1")
    taken = ("constant_map",)
    without = ("temperature_scaling",)
    report = "multi_label_report:write_report"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        label_smoothing: float = 0.0,
        thresholds: Sequence[float] = (),
        weights: Tensor | None = None,
        **common: Any,
    ):
        """`weights` (K,) are those of the images of each class in its loss."""
        super().__init__(classes, **common)
        self.label_smoothing, self.weights = label_smoothing, weights
        self.thresholds = tuple(thresholds) or (HALF,) * len(self.classes)

    @classmethod
    def for_training(cls, data: LabelledData, settings: LabelSettings, **common: Any) -> Self:
        weights = class_weights(settings, data)
        return cls(data.classes, label_smoothing=settings.label_smoothing, weights=weights, **common)

    @classmethod
    def for_model(cls, outputs: Outputs, **common: Any) -> Self:
        return cls(outputs.names, thresholds=outputs.thresholds, **common)  # type: ignore[attr-defined]

    @property
    def facts(self) -> dict[str, Any]:
        return {"target": "classes", "thresholds": list(self.thresholds)}

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Binary cross entropy in nats, the mean over classes; smoothing moves both targets towards a half."""
        wanted = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = None if self.weights is None else self.weights.to(outputs.device)
        return F.binary_cross_entropy_with_logits(outputs.float(), wanted, pos_weight=weights)

    def batch_metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """F1 of all answers of the batch together, at a half."""
        said, there = outputs > 0, labels > HALF
        right = 2 * (said & there).sum()
        return {"micro_f1": right / (said.sum() + there.sum()).clamp_min(1)}

    def settle(self, validation: Predictions) -> None:
        self.thresholds = choose_thresholds(probabilities(validation), validation.labels.numpy())

    def mix(self, batch: ImageBatch, settings: MixSettings, seed: int, number: int) -> ImageBatch:
        return mix(batch, settings, len(self.classes), seed, number)

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        loss = F.binary_cross_entropy_with_logits(predictions.logits, predictions.labels)
        found = multi_label_metrics(probabilities(predictions), predictions.labels.numpy(), self.thresholds)
        return {"loss": float(loss), **found}

    def final_metrics(self, predictions: Predictions) -> dict[str, float]:
        """With the mAP of who gives every image the same probabilities."""
        labels = predictions.labels.numpy()
        constant = average_precisions(labels * 0, labels)
        return {**self.compute_metrics(predictions), "constant_map": constant.mean}

    def align(self, labels: Tensor, names: Sequence[str]) -> Tensor | str:
        if unknown := unknown_class(self.classes, names):
            return unknown
        aligned = torch.zeros(len(labels), len(self.classes))
        aligned[:, [self.classes.index(name) for name in names]] = labels
        return aligned

    def missing(self, labels: Tensor) -> list[str]:
        return [name for name, there in zip(self.classes, labels.any(0).tolist(), strict=True) if not there]


def probabilities(predictions: Predictions) -> Any:
    """(N, K) float32, a numpy array."""
    return predictions.logits.sigmoid().numpy()
