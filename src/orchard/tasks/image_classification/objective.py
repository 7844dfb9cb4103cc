"""Which of K classes is this a picture of?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.augment import mix
from orchard.data.batches import ImageBatch
from orchard.data.contracts import ImageData
from orchard.data.settings import MixSettings
from orchard.inference.outputs import Outputs
from orchard.tasks.image_classification.image_objective import ImageObjective, Predictions, unknown_class
from orchard.tasks.image_classification.metrics import classification_metrics
from orchard.tasks.image_classification.settings import Settings


class ImageClassification(ImageObjective):
    """The loss and the metrics of a model that gives logits (B, K) of classes of which an image has one."""

    metric = "accuracy"
    validated = ("accuracy", "macro_f1")
    taken = ("majority_accuracy",)
    report = "report:write_report"

    def __init__(self, classes: Sequence[str], *, label_smoothing: float = 0.0, **common: Any):
        super().__init__(classes, **common)
        self.label_smoothing = label_smoothing

    @classmethod
    def for_training(cls, data: ImageData, settings: Settings, **common: Any) -> Self:
        return cls(data.classes, label_smoothing=settings.label_smoothing, **common)

    @classmethod
    def for_model(cls, outputs: Outputs, **common: Any) -> Self:
        return cls(outputs.names, **common)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy in nats."""
        return F.cross_entropy(outputs.float(), labels, label_smoothing=self.label_smoothing)

    def batch_metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        labels = labels if labels.ndim == 1 else labels.argmax(1)
        return {"accuracy": (outputs.argmax(1) == labels).float().mean()}

    def mix(self, batch: ImageBatch, settings: MixSettings, seed: int, number: int) -> ImageBatch:
        return mix(batch, settings, len(self.classes), seed, number)

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        computed = classification_metrics(predictions.logits, predictions.labels)
        return {"loss": float(F.cross_entropy(predictions.logits, predictions.labels)), **computed}

    def final_metrics(self, predictions: Predictions) -> dict[str, float]:
        return {**self.compute_metrics(predictions), "majority_accuracy": predictions.majority}

    def align(self, labels: Tensor, names: Sequence[str]) -> Tensor | str:
        unknown = unknown_class(self.classes, names)
        return unknown or torch.tensor([self.classes.index(name) for name in names])[labels]

    def missing(self, labels: Tensor) -> list[str]:
        there = {*labels.tolist()}
        return [name for place, name in enumerate(self.classes) if place not in there]
