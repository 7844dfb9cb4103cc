"""What does every pixel of an image belong to?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.masks.contracts import IGNORED
from orchard.data.masks.loader import MaskBatch
from orchard.models.segmentation.contract import segment, segment_with_auxiliaries
from orchard.tasks.semantic_segmentation.losses import cross_entropy, dice_loss
from orchard.tasks.semantic_segmentation.metrics import boundary_f1, class_figures, confusion, figures_of
from orchard.training.phases import one_phase


class SemanticSegmentation:
    """Cross entropy of pixels, with weights for classes and a share of the dice loss where that is asked for."""

    logged: tuple[str, ...] = ("pixel_accuracy", "miou", "mean_accuracy")

    def __init__(self, dice_weight: float = 0.0, class_weights: Tensor | None = None):
        """`class_weights` (K,) float32."""
        self.dice_weight, self.class_weights = dice_weight, class_weights
        self.phases = one_phase(self.loss)

    def criterion(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The loss of logits (B, K, H, W) for masks (B, H, W), a scalar."""
        weights = self.class_weights
        loss = cross_entropy(logits, masks, None if weights is None else weights.to(logits.device))
        return loss + self.dice_weight * dice_loss(logits, masks) if self.dice_weight else loss

    def loss(self, model: nn.Module, batch: MaskBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with that of auxiliary heads at their share, and the accuracy of the batch's pixels."""
        logits, auxiliaries = segment_with_auxiliaries(model, batch.images)
        loss = self.criterion(logits, batch.masks)
        for auxiliary in auxiliaries:
            loss = loss + model.auxiliary_weight * self.criterion(auxiliary, batch.masks)  # type: ignore[operator]
        kept = batch.masks != IGNORED
        right = ((logits.detach().argmax(1) == batch.masks) & kept).sum() / kept.sum().clamp(min=1)
        return loss, {"pixel_accuracy": right}


def balanced_weights(pixels: Sequence[int]) -> Tensor:
    """The weight of each class, (K,) float32: the mean of all counts over its own; 0 for a class without pixels."""
    counts = torch.tensor(pixels, dtype=torch.float64)
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0).float()


@dataclass(frozen=True)
class Predictions:
    """How right a model was on the N images of a split."""

    matrix: Tensor  # (K, K) int64: pixels by true and predicted class, over all images
    ious: Tensor  # (N,) float32: mean IoU of each image, over the classes that are true or said there
    boundaries: Tensor  # (N,) float32: boundary F1 of each image; not a number where there is none, or it was not asked
    losses: Tensor  # (N,) float32
    indices: Tensor  # (N,) int64

    @classmethod
    def merge(cls, parts: Sequence[Predictions]) -> Predictions:
        """The parts of one split, in the split's order."""
        names = ("ious", "boundaries", "losses", "indices")
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        order = columns["indices"].argsort()
        matrix = torch.stack([part.matrix for part in parts]).sum(0)
        return cls(matrix, **{name: column[order] for name, column in columns.items()})

    def figures(self, classes: Sequence[str] = ()) -> dict[str, float]:
        """Metrics of the split; with the names of the classes, IoU by class, too."""
        found = {"loss": float(self.losses.mean()), **figures_of(self.matrix)}
        if not self.boundaries.isnan().all():
            found["boundary_f1"] = float(self.boundaries.nanmean())
        return {**found, **(class_figures(self.matrix, classes) if classes else {})}


@torch.no_grad()
def logits_at(model: nn.Module, images: Tensor, size: Sequence[int]) -> Tensor:
    """The logits of images (B, C, h, w) at another height and width, float32 (B, K, H, W)."""
    logits = segment(model, images).float()
    if logits.shape[2:] == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


@torch.no_grad()
def predict_split(
    model: nn.Module, batches: Iterable[MaskBatch], objective: SemanticSegmentation, *, boundaries: bool
) -> Predictions:
    """Run `model`, as it stands, over batches of one image that are already on its device; with `boundaries` their F1
    is measured, which takes longer than small models do."""
    parts = []
    for batch in batches:
        logits = logits_at(model, batch.images, batch.masks.shape[1:])
        loss = objective.criterion(logits, batch.masks).cpu()[None]
        truth, said = batch.masks[0].cpu(), logits[0].argmax(0).cpu()
        matrix = confusion(truth, said, logits.shape[1])
        iou = torch.tensor([figures_of(matrix)["miou"]], dtype=torch.float32)
        score = boundary_f1(truth.byte().numpy(), said.byte().numpy()) if boundaries else float("nan")
        parts.append(Predictions(matrix, iou, torch.tensor([score]), loss, batch.indices))
    return Predictions.merge(parts)
