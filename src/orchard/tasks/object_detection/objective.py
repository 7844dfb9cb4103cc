"""Which objects are on an image, and where?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchard.data.boxes.loader import DetectionBatch
from orchard.models.detection.contract import Detections
from orchard.tasks.object_detection.losses import LossWeights, SetCriterion
from orchard.tasks.object_detection.matching import MatchingCosts, Targets
from orchard.tasks.object_detection.postprocessing import boxes_in_pixels
from orchard.tasks.object_detection.settings import DetectionSettings
from orchard.training.phases import one_phase


class ObjectDetection:
    """The loss for a model that gives `Detections`.

    Each process and each micro-batch divides the losses of boxes by its own number of objects.
    """

    logged: tuple[str, ...] = ("label_loss", "l1_loss", "giou_loss", "class_error", "cardinality_error", "ap", "ap50")

    def __init__(self, settings: DetectionSettings):
        s = settings
        self.criterion = SetCriterion(
            MatchingCosts(s.label_cost, s.l1_cost, s.giou_cost),
            LossWeights(s.label_weight, s.l1_weight, s.giou_weight, s.no_object_weight),
        )
        self.phases = one_phase(self.loss)

    def loss(self, model: nn.Module, batch: DetectionBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted losses of all decoder layers, and the parts of the last layer's."""
        losses = self.criterion(detect(model, batch), targets_of(batch))
        last = {
            "label_loss": losses.label, "l1_loss": losses.l1, "giou_loss": losses.giou,
            "class_error": losses.class_error / 100, "cardinality_error": losses.cardinality_error,
        }  # fmt: skip
        return losses.total, {name: values[-1].detach() for name, values in last.items()}


def detect(model: nn.Module, batch: DetectionBatch) -> Detections:
    found: Detections = model(batch.images.values, ~batch.images.mask)
    return found


def targets_of(batch: DetectionBatch) -> Targets:
    return Targets(batch.labels.rows(), batch.boxes.rows())


@dataclass(frozen=True)
class Predictions:
    """What a model said about a split, Q answers for each of N images, and what was wrong with it."""

    scores: Tensor  # (N, Q) float32
    labels: Tensor  # (N, Q) int64
    boxes: Tensor  # (N, Q, 4) float32: left, top, right, bottom in pixels of the image as it is stored
    losses: Tensor  # (N,) float32
    indices: Tensor  # (N,) int64

    @classmethod
    def merge(cls, parts: Sequence[Predictions]) -> Predictions:
        """The parts of one split, in the split's order."""
        names = ("scores", "labels", "boxes", "losses", "indices")
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        order = columns["indices"].argsort()
        return cls(**{name: column[order] for name, column in columns.items()})


@torch.no_grad()
def predict_split(model: nn.Module, batches: Iterable[DetectionBatch], criterion: SetCriterion) -> Predictions:
    """Run `model`, as it stands, over batches of one image that are already on its device."""
    parts = []
    for batch in batches:
        found = detect(model, batch)
        loss = criterion(found, targets_of(batch)).total.float()
        (answer,) = boxes_in_pixels(found, batch.sizes)
        scores, labels, boxes, losses = (one[None].cpu() for one in (answer.scores, answer.labels, answer.boxes, loss))
        parts.append(Predictions(scores, labels, boxes, losses, batch.indices))
    return Predictions.merge(parts)
