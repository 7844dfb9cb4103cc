"""What the three targets of images share: what an objective is, and the predictions that it is judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import LabelledData
from orchard.data.settings import MixSettings
from orchard.errors import UsageError
from orchard.inference.outputs import Outputs
from orchard.tasks.image_classification.joint import LOSS
from orchard.tasks.image_classification.robust import WorstCase
from orchard.tasks.image_classification.settings import JointSettings, LabelSettings
from orchard.training.phases import one_phase

OwnMetric = Callable[[Tensor, Tensor], float]
RESERVED = ("loss", "count", "learned")  # what else stands beside the metrics


@dataclass(frozen=True)
class Predictions:
    """What a model said about a split: outputs (N, K) float32, labels (N,) or (N, K), and indices (N,), in the split's
    order."""

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


class ImageObjective(ABC):
    """Losses and metrics of a model that gives outputs (B, K), a column for each of `classes`."""

    metric: ClassVar[str]  # by which checkpoints are selected
    validated: ClassVar[tuple[str, ...]]  # metrics that are said after every evaluation
    taken: ClassVar[tuple[str, ...]] = ()  # names of metrics that only final ones have
    without: ClassVar[tuple[str, ...]] = ()  # settings that have no meaning for it, each off at 0
    report: ClassVar[str]  # where the report is written, a function in a module of the task's folder

    def __init__(
        self,
        classes: Sequence[str],
        *,
        auxiliary_weight: float = 0.0,
        own_metrics: Mapping[str, OwnMetric] | None = None,
        joint: JointSettings | None = None,
        robust: WorstCase | None = None,
    ):
        """`auxiliary_weight` is that of the losses of classifiers inside the network, in training; `own_metrics` are a
        person's, by name, functions of outputs (N, K) float32 and labels (N,) int64 or (N, K) float32 of a split.
        `joint` has the weights of both losses of a model that generates images too; `robust` moves images before they
        are learned.
        """
        self.classes = tuple(classes)
        self.auxiliary_weight = auxiliary_weight
        self.joint = joint if joint is not None and joint.generative else None
        self.robust = robust
        self.own_metrics = own_metrics or {}
        self.logged = (*self.validated, *self.own_metrics)
        self.phases = one_phase(self.loss, through_forward=not (auxiliary_weight or self.joint or robust))

    @classmethod
    @abstractmethod
    def for_training(cls, data: LabelledData, settings: LabelSettings, **common: Any) -> Self:
        """That of a training on `data`."""

    @classmethod
    @abstractmethod
    def for_model(cls, outputs: Outputs, **common: Any) -> Self:
        """That of a model which is there."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a model's folder says of its outputs; nothing where they name one class."""
        return {}

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss (auxiliary classifiers' too, by their weight), and metrics of the batch, both of the worst
        images near its own where those are learned."""
        if self.robust is not None:
            worst = self.robust(model, batch.images, batch.labels, self.criterion)
            loss, figures = self.plain_loss(model, replace(batch, images=worst.images))
            return loss, figures | self.robust.metrics(loss, worst)
        return self.plain_loss(model, batch)

    def plain_loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch as it is."""
        auxiliaries: tuple[Tensor, ...] = ()
        if self.joint:
            return self._joint_loss(model, batch, self.joint)
        if self.auxiliary_weight:
            logits, auxiliaries = model.forward_with_auxiliaries(batch.images)  # type: ignore[operator]
        else:
            logits = model(batch.images)
        figures = self.batch_metrics(logits.detach(), batch.labels)
        loss = self.criterion(logits, batch.labels)
        for inner in auxiliaries:
            loss = loss + self.auxiliary_weight * self.criterion(inner, batch.labels)
        return loss, figures

    def _joint_loss(
        self, model: nn.Module, batch: ImageBatch, weights: JointSettings
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits, generative = model.forward_with_generation(batch.images)  # type: ignore[operator]
        figures = {**self.batch_metrics(logits.detach(), batch.labels), LOSS: generative.detach()}
        classification = self.criterion(logits, batch.labels)
        return weights.classification * classification + weights.generative * generative, figures

    @abstractmethod
    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of outputs (B, K), as training has it."""

    @abstractmethod
    def batch_metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What training logs of a batch beside the loss."""

    def settle(self, validation: Predictions) -> None:  # noqa: B027 most choose nothing
        """Choose what is chosen by the predictions of the validation split."""

    def mix(self, batch: ImageBatch, settings: MixSettings, seed: int, number: int) -> ImageBatch:
        """A training batch, mixed where that is asked for."""
        return batch

    def compute_metrics(self, predictions: Predictions) -> dict[str, float]:
        """The metrics and the mean loss (without smoothing) of a split's predictions."""
        computed = self.metrics(predictions)
        return {**computed, **self._own(predictions, {*RESERVED, *self.taken, *computed})}

    @abstractmethod
    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """The loss and the field's metrics of a split's predictions."""

    @abstractmethod
    def final_metrics(self, predictions: Predictions) -> dict[str, float]:
        """The metrics, and those of who answers without a model, beside which they are to be read."""

    @abstractmethod
    def align(self, labels: Tensor, names: Sequence[str]) -> Tensor | str:
        """Labels of data whose columns are `names` as this model has them; or what is wrong with the names."""

    def missing(self, labels: Tensor) -> list[str]:
        """The classes that no record of these labels has."""
        return []

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


@torch.no_grad()
def predict_split(model: nn.Module, batches: Iterable[ImageBatch]) -> Predictions:
    """Run `model`, as it stands, over batches that are already on its device."""
    return Predictions.merge(
        [Predictions(model(batch.images).float().cpu(), batch.labels.cpu(), batch.indices) for batch in batches]
    )


def unknown_class(classes: Sequence[str], names: Sequence[str]) -> str:
    """What is said of the first class that a model does not know; empty where it knows all."""
    strange = [name for name in names if name not in classes]
    return f"does not know the class '{strange[0]}' of {{source}}; it was not trained on it" if strange else ""
