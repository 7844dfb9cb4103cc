"""Which of K classes is this a picture of?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.tasks.image_classification.metrics import classification_metrics
from orchard.training.phases import one_phase

OwnMetric = Callable[[Tensor, Tensor], float]
RESERVED = ("loss", "majority_accuracy", "count", "learned")  # what else stands beside the metrics


class ImageClassification:
    """The loss, the metric and the answer for a model that gives logits (B, K)."""

    def __init__(
        self,
        classes: Sequence[str],
        *,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.0,
        own_metrics: Mapping[str, OwnMetric] | None = None,
    ):
        """`auxiliary_weight` is that of the losses of classifiers inside the network, in training; `own_metrics` are a
        person's, by name, functions of logits (N, K) float32 and labels (N,) int64 of a split.
        """
        self.classes = tuple(classes)
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        self.own_metrics = own_metrics or {}
        self.logged = ("accuracy", "macro_f1", *self.own_metrics)
        self.phases = one_phase(self.loss, through_forward=not auxiliary_weight)

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy in nats (auxiliary classifiers' too, by their weight), and the accuracy in the batch."""
        auxiliaries: tuple[Tensor, ...] = ()
        if self.auxiliary_weight:
            logits, auxiliaries = model.forward_with_auxiliaries(batch.images)  # type: ignore[operator]
        else:
            logits = model(batch.images)
        labels = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(1)
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        loss = self._cross_entropy(logits, batch.labels)
        for inner in auxiliaries:
            loss = loss + self.auxiliary_weight * self._cross_entropy(inner, batch.labels)
        return loss, {"accuracy": accuracy}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def compute_metrics(self, predictions: Predictions) -> dict[str, float]:
        """The metrics and the mean loss (without smoothing) of a split's predictions."""
        computed = classification_metrics(predictions.logits, predictions.labels)
        loss = float(F.cross_entropy(predictions.logits, predictions.labels))
        return {"loss": loss, **computed, **self._own(predictions, {*RESERVED, *computed})}

    def _own(self, predictions: Predictions, taken: set[str]) -> dict[str, float]:
        """A person's own metrics; UsageError for a name that is taken and for what gives no number."""
        found = {}
        for name, metric in self.own_metrics.items():
            if name in taken:
                raise UsageError(f"metrics: '{name}' is computed already; give yours another name")
            value = metric(predictions.logits, predictions.labels)
            try:
                found[name] = float(value)
            except (TypeError, ValueError, RuntimeError):
                raise UsageError(f"metrics: '{name}' gave a {type(value).__name__}; expected a number") from None
        return found

    def answer(self, logits: Tensor, top: int) -> list[list[tuple[str, float]]]:
        """For each picture its `top` most likely classes with their probabilities, most likely first."""
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
        """(N,) bool: was the most likely class the right one?"""
        return self.logits.argmax(1) == self.labels

    @property
    def majority(self) -> float:
        """The accuracy of who always names the most frequent class of these records."""
        return float(self.labels.bincount().max()) / len(self.labels)


@torch.no_grad()
def predict_split(model: nn.Module, batches: Iterable[ImageBatch]) -> Predictions:
    """Run `model`, as it stands, over batches that are already on its device."""
    return Predictions.merge(
        [Predictions(model(batch.images).float().cpu(), batch.labels.cpu(), batch.indices) for batch in batches]
    )
