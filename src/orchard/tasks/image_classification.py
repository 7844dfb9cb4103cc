"""Which of K classes is this a picture of?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

from orchard.tasks.phases import one_phase


@dataclass(frozen=True)
class ImageBatch:
    """What this task learns from.

    images: (B, C, H, W) float, as the model's preprocessing left them;
    labels: (B,) int64, or (B, K) float where pictures were mixed;
    indices: (B,) int64, the place of each picture in its split.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def to(self, device: torch.device | str, *, channels_last: bool = False) -> ImageBatch:
        images = self.images.to(device, non_blocking=True)
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return ImageBatch(images, self.labels.to(device, non_blocking=True), self.indices)

    def parts(self, count: int) -> list[ImageBatch]:
        """The batch in up to `count` equal pieces, for gradients that are gathered piece by piece."""
        pieces = zip(self.images.chunk(count), self.labels.chunk(count), self.indices.chunk(count), strict=True)
        return [ImageBatch(*piece) for piece in pieces]

    def __len__(self) -> int:
        return len(self.images)


class ImageClassification:
    """The loss, the metric and the answer for a model that gives logits (B, K)."""

    name = "image-classification"
    quality = "accuracy"  # the figure by which checkpoints are chosen; larger is better
    logged: tuple[str, ...] = ("accuracy", "macro_f1")

    def __init__(self, classes: Sequence[str], *, label_smoothing: float = 0.0):
        self.classes = tuple(classes)
        self.label_smoothing = label_smoothing
        self.phases = one_phase(self.loss, through_forward=True)

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Mean cross entropy in nats, a scalar, and the logits (B, K), both float32."""
        logits = model(batch.images).float()
        return F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing), logits

    def metrics(self) -> MetricCollection:
        """Top-1 and top-5 accuracy, macro F1 and calibration error, over predictions added batch by batch."""
        K = len(self.classes)
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(K, average="micro"),
            "macro_f1": MulticlassF1Score(K, average="macro"),
            "calibration_error": MulticlassCalibrationError(K),
        }
        if K > 5:
            metrics["top5_accuracy"] = MulticlassAccuracy(K, average="micro", top_k=5)
        return MetricCollection(metrics)

    def score(self, predictions: Predictions) -> dict[str, float]:
        """The metrics and the mean loss (without smoothing) of a split's predictions."""
        metrics = self.metrics()
        metrics.update(predictions.logits, predictions.labels)
        figures = {name: float(value) for name, value in metrics.compute().items()}
        return {"loss": float(F.cross_entropy(predictions.logits, predictions.labels)), **figures}

    def observe(self, logits: Tensor, batch: ImageBatch) -> dict[str, Tensor]:
        """Figures of one training batch for the log, as means over its pictures."""
        labels = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(1)
        return {"accuracy": (logits.argmax(1) == labels).float().mean()}

    def answer(self, logits: Tensor, top: int) -> list[list[tuple[str, float]]]:
        """For each picture its `top` likeliest classes with their probabilities, likeliest first."""
        probabilities, places = logits.float().softmax(-1).topk(min(top, len(self.classes)))
        return [
            [(self.classes[i], p) for i, p in zip(row_i, row_p, strict=True)]
            for row_i, row_p in zip(places.tolist(), probabilities.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Predictions:
    """What a model said about a split: logits (N, K) float32, labels (N,) and indices (N,), in the split's order."""

    logits: Tensor
    labels: Tensor
    indices: Tensor

    @classmethod
    def merge(cls, parts: Sequence[Predictions]) -> Predictions:
        """The parts of one split that several processes predicted, in the split's order again."""
        logits, labels, indices = (
            torch.cat([getattr(p, name) for p in parts]) for name in ("logits", "labels", "indices")
        )
        order = indices.argsort()
        return cls(logits[order], labels[order], indices[order])

    @property
    def correct(self) -> Tensor:
        """(N,) bool: was the likeliest class the right one?"""
        return self.logits.argmax(1) == self.labels


@torch.no_grad()
def predict_split(model: nn.Module, batches: Iterable[ImageBatch]) -> Predictions:
    """Run `model`, as it stands, over batches that are already on its device."""
    return Predictions.merge(
        [Predictions(model(batch.images).float().cpu(), batch.labels.cpu(), batch.indices) for batch in batches]
    )
