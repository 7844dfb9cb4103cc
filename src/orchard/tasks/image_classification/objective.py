"""Which of K classes is this a picture of?"""

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
from orchard.inference.outputs import OneClass, Outputs
from orchard.tasks.image_classification.image_objective import ImageObjective, Predictions, unknown_class
from orchard.tasks.image_classification.imbalance import class_weights
from orchard.tasks.image_classification.metrics import best_temperature, classification_metrics
from orchard.tasks.image_classification.settings import LabelSettings


class ImageClassification(ImageObjective):
    """The loss and the metrics of a model that gives logits (B, K) of classes of which an image has one."""

    metric = "accuracy"
    validated = ("accuracy", "macro_f1")
    taken = ("majority_accuracy",)
    report = "report:write_report"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
        temperature: float = 1.0,
        scaled: bool = False,
        **common: Any,
    ):
        """`weights` (K,) are those of the classes in the loss. Logits are divided by `temperature` before they are
        judged; where `scaled`, the validation split chooses it.
        """
        super().__init__(classes, **common)
        self.label_smoothing, self.weights, self.temperature, self.scaled = (
            label_smoothing, weights, temperature, scaled
        )  # fmt: skip

    @classmethod
    def for_training(cls, data: LabelledData, settings: LabelSettings, **common: Any) -> Self:
        return cls(
            data.classes, label_smoothing=settings.label_smoothing, weights=class_weights(settings, data),
            scaled=settings.temperature_scaling, **common,
        )  # fmt: skip

    @classmethod
    def for_model(cls, outputs: Outputs, **common: Any) -> Self:
        assert isinstance(outputs, OneClass)
        return cls(outputs.names, temperature=outputs.temperature, **common)

    @property
    def facts(self) -> dict[str, Any]:
        return {"target": "class", "temperature": self.temperature} if self.scaled else {}

    def settle(self, validation: Predictions) -> None:
        if self.scaled:
            self.temperature = best_temperature(validation.logits, validation.labels)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy in nats."""
        weights = None if self.weights is None else self.weights.to(outputs.device)
        return F.cross_entropy(outputs.float(), labels, weights, label_smoothing=self.label_smoothing)

    def batch_metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        labels = labels if labels.ndim == 1 else labels.argmax(1)
        return {"accuracy": (outputs.argmax(1) == labels).float().mean()}

    def mix(self, batch: ImageBatch, settings: MixSettings, seed: int, number: int) -> ImageBatch:
        return mix(batch, settings, len(self.classes), seed, number)

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        logits = predictions.logits / self.temperature
        computed = classification_metrics(logits, predictions.labels)
        return {"loss": float(F.cross_entropy(logits, predictions.labels)), **computed}

    def final_metrics(self, predictions: Predictions) -> dict[str, float]:
        return {**self.compute_metrics(predictions), "majority_accuracy": predictions.majority}

    def align(self, labels: Tensor, names: Sequence[str]) -> Tensor | str:
        unknown = unknown_class(self.classes, names)
        return unknown or torch.tensor([self.classes.index(name) for name in names])[labels]

    def missing(self, labels: Tensor) -> list[str]:
        there = {*labels.tolist()}
        return [name for place, name in enumerate(self.classes) if place not in there]
