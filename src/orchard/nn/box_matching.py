"""Which object an anchor or a region stands for, and which of them a step learns from (arXiv:1506.01497, 3.1.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

NOTHING, BETWEEN = -1, -2


def match_boxes(objects: Tensor, boxes: Tensor, low: float, high: float, *, best_of_each: bool) -> Tensor:
    """For each of `boxes` (N, 4) the object (M, 4) that it stands for, (N,) int64, or NOTHING or BETWEEN.

    The object is that with the largest IoU, from `high` on; below `low` it is NOTHING, and what lies BETWEEN is not
    learned from. With `best_of_each` the boxes that overlap an object more than all others do (ties too) stand for an
    object however small the IoU is.
    """
    if not len(objects):
        return torch.full((len(boxes),), NOTHING, device=boxes.device)
    overlaps = box_iou(objects, boxes)  # (M, N)
    most, nearest = overlaps.max(0)
    found = nearest.where(most >= high, torch.where(most < low, NOTHING, BETWEEN))
    if best_of_each:
        best = (overlaps == overlaps.max(1, keepdim=True).values).any(0)
        found = nearest.where(best, found)
    return found


def sample_boxes(matched: Tensor, most: int, share: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Up to `most` places in `matched` (N,), as `match_boxes` gives it, in order: those that stand for an object, at
    most that share, and those that stand for NOTHING.

    Drawn from `generator`, which is on the CPU, or from torch's own.
    """
    positive, negative = (matched >= 0).nonzero().flatten(), (matched == NOTHING).nonzero().flatten()
    count = min(len(positive), int(most * share))
    return _some(positive, count, generator), _some(negative, most - count, generator)


def _some(places: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    order = torch.randperm(len(places), generator=generator)[:count].sort().values
    return places[order.to(places.device)]
