"""Boxes as differences from other boxes (R-CNN, arXiv:1311.2524, appendix C; Fast R-CNN, arXiv:1504.08083).

All boxes are left, top, right, bottom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MOST = math.log(1000 / 16)  # by which a logarithm of a ratio of sides is bounded, so that its exponential is


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: Sequence[float]) -> Tensor:
    """How boxes (..., 4) with an area differ from anchors (..., 4): dx, dy, dw, dh, (..., 4).

    Middles differ in shares of the anchor's sides, sides in the logarithm of their ratio; each is multiplied by its
    weight.
    """
    sides, middles = _sides_and_middles(anchors)
    wanted, places = _sides_and_middles(boxes)
    deltas = torch.cat([(places - middles) / sides, torch.log(wanted / sides)], -1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(deltas: Tensor, anchors: Tensor, weights: Sequence[float]) -> Tensor:
    """The boxes (..., 4) that differ so from anchors (..., 4): the inverse of `encode_boxes`."""
    sides, middles = _sides_and_middles(anchors)
    deltas = deltas / deltas.new_tensor(weights)
    places = deltas[..., :2] * sides + middles
    halves = 0.5 * (deltas[..., 2:].clamp(max=MOST).exp() * sides)
    return torch.cat([places - halves, places + halves], -1)


def _sides_and_middles(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height (..., 2), middle x and y (..., 2)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return sides, boxes[..., :2] + 0.5 * sides
