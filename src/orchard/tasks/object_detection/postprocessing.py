"""From what a detector returns to scored boxes in pixels (DETR, appendix A.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from orchard.models.detection.contract import Detections


@dataclass(frozen=True)
class Found:
    """One answer for each query of a picture, in no order."""

    scores: Tensor  # (Q,) float32, probabilities
    labels: Tensor  # (Q,) int64
    boxes: Tensor  # (Q, 4) float32: left, top, right, bottom in pixels


def boxes_in_pixels(found: Detections, sizes: Tensor) -> list[Found]:
    """One answer per query and picture: its most likely class but "no object", and its box.

    `sizes` (B, 2) are heights and widths of the pictures as they came. Boxes are not cut off at the edges.
    """
    probabilities = found.logits.float().softmax(-1)[..., :-1]  # (B, Q, K)
    scores, labels = probabilities.max(-1)
    height, width = sizes.to(found.boxes).unbind(1)
    scale = torch.stack([width, height, width, height], 1)[:, None]  # (B, 1, 4)
    boxes = box_convert(found.boxes.float(), "cxcywh", "xyxy") * scale
    return [Found(*one) for one in zip(scores, labels, boxes, strict=True)]
