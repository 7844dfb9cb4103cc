"""Checks of what comes in, one line each, so that a wrong tensor is named where it enters."""

from __future__ import annotations

from torch import Tensor


def check_images(images: Tensor, channels: int, size: tuple[int, int] | None = None, least: int = 1) -> None:
    """Raise ValueError unless `images` is a float (B, channels, H, W), of `size` or at least `least` a side."""
    wanted = f"(B, {channels}, {size[0]}, {size[1]})" if size else f"(B, {channels}, H, W)"
    if images.ndim != 4 or images.shape[1] != channels or (size and tuple(images.shape[2:]) != size):
        raise ValueError(f"expected pictures of shape {wanted}, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"expected normalised float pictures, got {images.dtype}; divide by 255 and normalise first")
    if min(images.shape[2:]) < least:
        raise ValueError(f"expected pictures of at least {least} pixels a side, got {tuple(images.shape)}")
