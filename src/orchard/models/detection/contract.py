"""What detectors have in common: their output, and the mask that says where a padded picture ends.

A detector takes `(images, padding_mask)`: pictures (B, C, H, W), normalised and padded with zeros at the bottom and the
right to one size, and where that is, (B, H, W) bool, true on padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """What is found in each picture: one class and one box per query, in no order."""

    logits: Tensor  # (B, Q, K + 1), the last for "no object"
    boxes: Tensor  # (B, Q, 4): middle x, middle y, width, height, as shares of the picture without its padding
    auxiliary: tuple[Detections, ...] = ()  # the same after each decoder layer but the last, for training


def check_padding(padding_mask: Tensor, images: Tensor) -> None:
    """Raise ValueError unless the mask is a bool (B, H, W) of the pictures' own size."""
    wanted = (images.shape[0], *images.shape[2:])  # len() of a tensor would be a constant in an export
    if padding_mask.dtype != torch.bool or tuple(padding_mask.shape) != wanted:
        found = f"{tuple(padding_mask.shape)} {str(padding_mask.dtype).removeprefix('torch.')}"
        raise ValueError(f"expected a padding mask of shape {wanted} bool, true where there is no picture, got {found}")
