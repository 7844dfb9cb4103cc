"""Checks of what comes in, one line each, so that a wrong tensor is named where it enters."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(images: Tensor, channels: int, size: tuple[int, int] | None = None, least: int = 1) -> None:
    """Raise ValueError unless `images` is a float (B, channels, H, W), of `size` or at least `least` a side."""
    wanted = f"(B, {channels}, {size[0]}, {size[1]})" if size else f"(B, {channels}, H, W)"
    if images.ndim != 4 or images.shape[1] != channels or (size and tuple(images.shape[2:]) != size):
        raise ValueError(f"expected pictures of shape {wanted}, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"expected normalised float pictures, got {images.dtype}; divide by 255 and normalise first")
    if any(side < least for side in images.shape[2:]):  # one by one, as an export may leave both sides open
        raise ValueError(f"expected pictures of at least {least} pixels a side, got {tuple(images.shape)}")


def check_labels(labels: Tensor | None, batch: int, num_classes: int) -> None:
    """Raise ValueError unless `labels` is int64 (batch,) with every entry from 0 to num_classes - 1."""
    if labels is None or labels.shape != (batch,) or labels.dtype != torch.int64:
        found = "none" if labels is None else f"{tuple(labels.shape)} {labels.dtype}"
        raise ValueError(f"expected one class for each image, ({batch},) int64, got {found}")
    if labels.device.type != "cpu" or torch.compiler.is_compiling() or not labels.numel():
        return  # a look at the numbers would make an accelerator wait
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"expected classes from 0 to {num_classes - 1}, got {low} to {high}")
