"""Which objects are on an image, and where?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from orchard.data.boxes.contracts import Objects
from orchard.data.boxes.loader import DetectionBatch
from orchard.data.boxes.object_masks import Masks
from orchard.errors import UsageError
from orchard.models.detection.contract import Found, OwnLosses
from orchard.tasks.object_detection.losses import LossWeights, SetCriterion
from orchard.tasks.object_detection.matching import MatchingCosts, Targets
from orchard.tasks.object_detection.settings import DetectionSettings
from orchard.training.phases import Phase, one_phase


class ObjectDetection(Protocol):
    """What a detector learns from, and how it is judged."""

    @property
    def phases(self) -> tuple[Phase, ...]: ...
    @property
    def logged(self) -> Sequence[str]: ...
    @property
    def answers(self) -> type[Predictions]:
        """What is kept of its judgement of a split."""

    def judge(self, model: nn.Module, batch: DetectionBatch) -> tuple[list[Found], Tensor]:
        """What the model finds on each image, in pixels of the image as it is stored; and the loss of the batch."""


def objective_for(model: nn.Module, settings: DetectionSettings) -> ObjectDetection:
    """A model's own losses, if it has any, else set prediction as the settings say.

    Raises UsageError for settings of set prediction where a model has losses of its own.
    """
    if not hasattr(model, "losses"):
        return SetPrediction(settings)
    changed = [name for name, value in DetectionSettings() if getattr(settings, name) != value]
    if changed:
        raise UsageError(
            f"detection.{changed[0]} is of models that predict a set of boxes, such as DETR; {type(model).__name__} "
            f"has losses of its own: leave it out"
        )
    return OwnObjective(model)


class SetPrediction:
    """The loss for a model that gives `Detections`.

    Each process and each micro-batch divides the losses of boxes by its own number of objects.
    """

    @property
    def answers(self) -> type[Predictions]:
        return Predictions

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

    def judge(self, model: nn.Module, batch: DetectionBatch) -> tuple[list[Found], Tensor]:
        found = detect(model, batch)
        return found.found(batch.sizes), self.criterion(found, targets_of(batch)).total


class OwnObjective:
    """The sum of the losses that a model brings along (`OwnLosses`).

    What they draw at random comes from torch's generator, which a training seeds in every step; for judging, from one
    that the image's index seeds, so that an image has the same loss whenever it is looked at.
    """

    def __init__(self, model: Any):
        self.logged: tuple[str, ...] = (*(f"{name}_loss" for name in model.loss_names), "ap", "ap50")
        self.phases = one_phase(self.loss)

    @property
    def answers(self) -> type[Predictions]:
        return Predictions

    def loss(
        self, model: nn.Module, batch: DetectionBatch, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = cast(OwnLosses, model)
        losses = own.losses(batch.images.values, ~batch.images.mask, **self.targets(batch), generator=generator)
        return torch.stack(list(losses.values())).sum(), {f"{name}_loss": one.detach() for name, one in losses.items()}

    def judge(self, model: nn.Module, batch: DetectionBatch) -> tuple[list[Found], Tensor]:
        generator, own = torch.Generator().manual_seed(int(batch.indices[0])), cast(OwnLosses, model)
        answer, losses = own.judge(
            batch.images.values, ~batch.images.mask, **self.targets(batch), generator=generator
        )  # fmt: skip
        return answer.found(batch.sizes), torch.stack(list(losses.values())).sum()

    def targets(self, batch: DetectionBatch) -> dict[str, Any]:
        """What the losses compare with, by its name among their arguments."""
        return {"boxes": batch.boxes.rows(), "labels": batch.labels.rows()}


def detect(model: nn.Module, batch: DetectionBatch) -> Any:
    return model(batch.images.values, ~batch.images.mask)


def targets_of(batch: DetectionBatch) -> Targets:
    return Targets(batch.labels.rows(), batch.boxes.rows())


@dataclass(frozen=True)
class Predictions:
    """What a model said about a split, up to Q answers for each of N images, and what was wrong with it."""

    scores: Tensor  # (N, Q) float32; less than 0 where an image has fewer answers
    labels: Tensor  # (N, Q) int64
    boxes: Tensor  # (N, Q, 4) float32: left, top, right, bottom in pixels of the image as it is stored
    losses: Tensor  # (N,) float32
    indices: Tensor  # (N,) int64

    @classmethod
    def of(cls, found: Found, loss: Tensor, batch: DetectionBatch) -> Self:
        """What was found on the one image of a batch."""
        said = found.scores, found.labels, found.boxes, loss.float()
        scores, labels, boxes, losses = (one[None].cpu() for one in said)
        return cls(scores, labels, boxes, losses, batch.indices)

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """The parts of one split, in the split's order."""
        most = max(part.scores.shape[1] for part in parts)
        parts = [part._filled(most) for part in parts]
        names = ("scores", "labels", "boxes", "losses", "indices")
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        order = columns["indices"].argsort()
        return cls(**{name: column[order] for name, column in columns.items()})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """What `tensors` gave."""
        return cls(**tensors)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, for a file."""
        return dict(vars(self))

    def overlaps(self, place: int, answers: Tensor, objects: Objects) -> Tensor:
        """The IoU of some answers for the image at a place, (M,) int64, with its objects: (M, N)."""
        return box_iou(self.boxes[place][answers], torch.from_numpy(objects.boxes))

    def masks_of(self, place: int) -> Masks | None:
        """The masks of the answers for the image at a place, where there are such."""
        return None

    def _filled(self, count: int) -> Self:
        """The same with this many answers for each image."""
        more = (0, count - self.scores.shape[1])
        scores, labels, boxes = (
            F.pad(self.scores, more, value=-1),
            F.pad(self.labels, more),
            F.pad(self.boxes, (0, 0, *more)),
        )
        return replace(self, scores=scores, labels=labels, boxes=boxes)


@torch.no_grad()
def predict_split(model: nn.Module, batches: Iterable[DetectionBatch], objective: ObjectDetection) -> Predictions:
    """Run `model`, as it stands, over batches of one image that are already on its device."""
    parts = []
    for batch in batches:
        (found,), loss = objective.judge(model, batch)
        parts.append(objective.answers.of(found, loss, batch))
    return objective.answers.merge(parts)
