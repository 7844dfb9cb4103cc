"""The losses of set prediction (DETR, arXiv:2005.12872, section 3.1 and appendix A.2), tensors in and tensors out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss

from orchard.models.detection.contract import Detections
from orchard.tasks.object_detection.matching import MatchingCosts, Targets, layers_of, match


@dataclass(frozen=True)
class LossWeights:
    """How the losses of one decoder layer are weighed, and the class "no object" among the others (appendix A.4)."""

    label: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    no_object: float = 0.1


@dataclass(frozen=True)
class SetLosses:
    """Losses and measures of every decoder layer, the last one last; (L,) each, and the weighted sum of all layers."""

    total: Tensor
    label: Tensor  # cross entropy over all queries
    l1: Tensor  # absolute difference of the boxes' four numbers, a mean over the objects of the sum
    giou: Tensor  # 1 - generalised intersection over union
    class_error: Tensor  # percentage of matched queries whose most likely class is another
    cardinality_error: Tensor  # by how many objects the count of a picture is off; no gradient


@dataclass(frozen=True)
class SetCriterion:
    """Match predictions to objects, then compare each pair; a query without an object should say "no object"."""

    costs: MatchingCosts = field(default_factory=MatchingCosts)
    weights: LossWeights = field(default_factory=LossWeights)

    def __call__(self, found: Detections, targets: Targets, count: Tensor | float | None = None) -> SetLosses:
        """`count` is what the losses of boxes are divided by: the objects of this batch, or where several processes
        share a batch, their mean over the processes. At least 1 is taken.
        """
        logits, boxes = (one.float() for one in layers_of(found))  # (L, B, Q, K + 1) and (L, B, Q, 4)
        matches = match(logits, boxes, targets, self.costs)
        layer = torch.arange(len(logits), device=logits.device)[:, None]
        pairs = layer, matches.pictures, matches.queries
        labels = torch.cat(list(targets.labels))[matches.objects]  # (L, N)
        wanted = torch.cat(list(targets.boxes))[matches.objects]  # (L, N, 4)
        divisor = torch.as_tensor(targets.count if count is None else count, device=logits.device).clamp(min=1)
        label = self._label_loss(logits, pairs, labels)
        l1 = F.l1_loss(boxes[pairs], wanted, reduction="none").sum((1, 2)) / divisor
        corners = (box_convert(one, "cxcywh", "xyxy") for one in (boxes[pairs], wanted))
        giou = generalized_box_iou_loss(*corners, eps=0.0).sum(1) / divisor  # the boxes of real objects have an area
        w = self.weights
        return SetLosses(
            total=(w.label * label + w.l1 * l1 + w.giou * giou).sum(),
            label=label,
            l1=l1,
            giou=giou,
            class_error=class_error(logits.detach()[pairs], labels),
            cardinality_error=cardinality_error(logits.detach(), targets),
        )

    def _label_loss(self, logits: Tensor, pairs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """Cross entropy of all queries, (L,), a mean in which those without an object count less."""
        nothing = logits.shape[-1] - 1
        wanted = torch.full(logits.shape[:3], nothing, device=logits.device)  # (L, B, Q)
        wanted[pairs] = labels
        losses = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view(wanted.shape)
        weights = torch.where(wanted == nothing, self.weights.no_object, 1.0)
        return (losses * weights).sum((1, 2)) / weights.sum((1, 2))


def class_error(matched: Tensor, labels: Tensor) -> Tensor:
    """Percentage of matched queries, logits (L, N, K + 1), whose most likely answer is not their object's class (L, N).

    A batch without objects has none.
    """
    wrong = (matched.argmax(-1) != labels).float()
    return 100 * wrong.sum(1) / max(labels.shape[1], 1)


def cardinality_error(logits: Tensor, targets: Targets) -> Tensor:
    """How far the count of queries that say something, of logits (L, B, Q, K + 1), is from that of objects: (L,)."""
    said = (logits.argmax(-1) != logits.shape[-1] - 1).sum(-1)  # (L, B)
    real = torch.tensor([len(labels) for labels in targets.labels], device=logits.device)
    return (said - real).abs().float().mean(1)
