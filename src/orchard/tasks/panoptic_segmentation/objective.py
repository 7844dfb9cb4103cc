"""Which thing or stuff does every pixel belong to?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from orchard.data.panoptic.contracts import Segments
from orchard.data.panoptic.loader import PanopticBatch
from orchard.models.detection.detr import Looked
from orchard.tasks.object_detection.losses import LossWeights, SetCriterion, SetLosses
from orchard.tasks.object_detection.matching import MatchingCosts, Targets, match
from orchard.tasks.object_detection.settings import DetectionSettings
from orchard.tasks.panoptic_segmentation.losses import mask_losses, mean_over
from orchard.tasks.panoptic_segmentation.merging import Segmented, likely, merge
from orchard.tasks.panoptic_segmentation.metrics import compare, figures_of, qualities
from orchard.tasks.panoptic_segmentation.settings import PanopticSettings
from orchard.training.phases import one_phase


class PanopticModel(Protocol):
    """A model that finds a set of segments and makes masks of those that are asked for."""

    def look(self, images: Tensor, padding_mask: Tensor) -> Looked: ...

    def masks(self, looked: Looked, pictures: Tensor, queries: Tensor) -> Tensor:
        """Logits (N, h, w): of picture `pictures[n]` the mask of its query `queries[n]`."""
        ...


@dataclass(frozen=True)
class PanopticLosses:
    """What is learned from, and its parts: those of the set, and of the masks of the last layer's matched queries."""

    total: Tensor
    set: SetLosses
    focal: Tensor
    dice: Tensor


class PanopticSegmentation:
    """Losses of DETR's set, and of the masks of the queries that were matched.

    Each process and each micro-batch divides the losses of boxes and masks by its own number of segments.
    """

    logged: tuple[str, ...] = (
        "label_loss", "l1_loss", "giou_loss", "focal_loss", "dice_loss", "class_error", "pq", "pq_things", "pq_stuff",
    )  # fmt: skip

    def __init__(self, detection: DetectionSettings, panoptic: PanopticSettings, things: Sequence[bool]):
        d = detection
        self.criterion = SetCriterion(
            MatchingCosts(d.label_cost, d.l1_cost, d.giou_cost),
            LossWeights(d.label_weight, d.l1_weight, d.giou_weight, d.no_object_weight),
        )
        self.masks, self.things = panoptic, things
        self.phases = one_phase(self.loss)

    def loss(self, model: nn.Module, batch: PanopticBatch) -> tuple[Tensor, dict[str, Tensor]]:
        losses = self.losses(model, look(model, batch), batch)
        last = {
            "label_loss": losses.set.label[-1], "l1_loss": losses.set.l1[-1], "giou_loss": losses.set.giou[-1],
            "focal_loss": losses.focal, "dice_loss": losses.dice, "class_error": losses.set.class_error[-1] / 100,
        }  # fmt: skip
        return losses.total, {name: value.detach() for name, value in last.items()}

    def losses(self, model: Any, looked: Looked, batch: PanopticBatch) -> PanopticLosses:
        """The weighted sum of all, with the masks of the last layer's matches."""
        targets = targets_of(batch)
        found = self.criterion(looked.found, targets)
        last = looked.found.logits[None].float(), looked.found.boxes[None].float()
        matches = match(*last, targets, self.criterion.costs)
        pictures, queries, objects = matches.pictures[0], matches.queries[0], matches.objects[0]
        truth = batch.maps[pictures] == numbers_of(batch)[objects, None, None]  # (N, H, W)
        each = mask_losses(model.masks(looked, pictures, queries), truth)
        focal, dice = (mean_over(losses, targets.count) for losses in each)
        total = found.total + self.masks.focal_weight * focal + self.masks.dice_weight * dice
        return PanopticLosses(total, found, focal, dice)

    def judge(self, model: nn.Module, batch: PanopticBatch) -> tuple[Segmented, Tensor]:
        """The segments of a batch of one image, of the size that is stored, and its loss."""
        looked = look(model, batch)
        height, width = batch.maps.shape[1:]
        said = segments_of(model, looked, self.things, self.masks.threshold, batch.images.values, (height, width))
        return said, self.losses(model, looked, batch).total


def look(model: nn.Module, batch: PanopticBatch) -> Looked:
    return cast(PanopticModel, model).look(batch.images.values, ~batch.images.mask)


def segments_of(
    model: Any, looked: Looked, things: Sequence[bool], threshold: float, images: Tensor, stored: tuple[int, int]
) -> Segmented:
    """The segments of the one image that was looked at, (1, C, h, w), at the size at which it is stored."""
    queries = likely(looked.found.logits[0], threshold)
    masks = model.masks(looked, torch.zeros_like(queries), queries)
    height, width = images.shape[2:]
    return merge(looked.found.logits[0, queries], masks, things, (height, width), stored)


def targets_of(batch: PanopticBatch) -> Targets:
    """The segments that are learned: no crowds."""
    kept = [~crowd for crowd in batch.crowd.rows()]
    labels = [row[those] for row, those in zip(batch.labels.rows(), kept, strict=True)]
    return Targets(labels, [row[those] for row, those in zip(batch.boxes.rows(), kept, strict=True)])


def numbers_of(batch: PanopticBatch) -> Tensor:
    """What each of the targets is in its image's map, (M,) int64."""
    return torch.cat([(~crowd).nonzero()[:, 0] + 1 for crowd in batch.crowd.rows()])


@dataclass(frozen=True)
class Predictions:
    """How right a model was on the N images of a split."""

    counts: Tensor  # (4, K) float64: matched, wrong, missed segments and the sum of IoUs, over all images
    qualities: Tensor  # (N,) float32: PQ of each image, over its classes that are true or said; NaN without any
    losses: Tensor  # (N,) float32
    indices: Tensor  # (N,) int64

    @classmethod
    def merge(cls, parts: Sequence[Predictions]) -> Predictions:
        """The parts of one split, in the split's order."""
        names = ("qualities", "losses", "indices")
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        order = columns["indices"].argsort()
        counts = torch.stack([part.counts for part in parts]).sum(0)
        return cls(counts, **{name: column[order] for name, column in columns.items()})

    def figures(self, things: Sequence[bool]) -> dict[str, float]:
        """Metrics of the split."""
        return {"loss": float(self.losses.mean()), **figures_of(self.counts.numpy(), things)}


@torch.no_grad()
def predict_split(model: nn.Module, batches: Iterable[PanopticBatch], objective: PanopticSegmentation) -> Predictions:
    """Run `model`, as it stands, over batches of one image that are already on its device."""
    parts = []
    for batch in batches:
        said, loss = objective.judge(model, batch)
        labels, crowd = (ragged.values.cpu().numpy() for ragged in (batch.labels, batch.crowd))
        counts = compare(Segments(batch.maps[0].cpu(), labels, crowd), said, len(objective.things))
        quality = torch.from_numpy(qualities(counts).pq).nanmean().float()[None]
        parts.append(Predictions(torch.from_numpy(counts), quality, loss.float().cpu()[None], batch.indices))
    return Predictions.merge(parts)
