"""`fit` on tensors: the same crop, resizing and borders in torch's operations, which every exporter takes.

Pillow's resizing is a weighted sum along rows, rounded to whole levels, then one along columns, rounded again. Each is
a product with a matrix here, made of the picture's own height and width, so that one exported graph takes all sizes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orchard.data.contracts import Preprocess

HALF = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}  # where a filter ends, in pixels of the smaller scale


def fit_pixels(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Pictures of one size, (B, C, H, W) levels in [0, 255], as evaluation and prediction see them: whole levels in
    float32, (B, C, rows, columns). C is the number that the preprocessing is for.

    `fit` gives the same but for single levels: where a sum lies halfway between two, and in tall pictures, whose
    columns newer versions of Pillow take first.
    """
    rows, columns = preprocess.size
    height, width = (torch.scalar_tensor(side, dtype=torch.float64) for side in pixels.shape[2:])
    if preprocess.resize == "shorter-side":
        pixel = torch.minimum(height / rows, width / columns) * preprocess.crop  # side of one pixel of the result
        down, across = rows * pixel, columns * pixel
    else:
        down, across = height * preprocess.crop, width * preprocess.crop
    inner_rows, inner_columns = (torch.scalar_tensor(side, dtype=torch.float64) for side in (rows, columns))
    if preprocess.resize == "letterbox":
        scale = torch.minimum(rows / down, columns / across)
        inner_rows, inner_columns = ((side * scale).round().clamp(min=1) for side in (down, across))
    by_columns, wide = _weights(pixels.shape[3], width, across, columns, inner_columns, preprocess.interpolation)
    by_rows, high = _weights(pixels.shape[2], height, down, rows, inner_rows, preprocess.interpolation)
    x = _whole(pixels.float() @ by_columns.T)
    x = _whole(by_rows @ x)
    if preprocess.resize != "letterbox":
        return x
    fill = torch.tensor(preprocess.fill, dtype=torch.float32, device=x.device)[:, None, None]
    return torch.where((high[:, None] & wide[None]).to(x.device), x, fill)


def _whole(levels: Tensor) -> Tensor:
    return torch.floor(levels + 0.5).clamp(0, 255)


def _weights(
    count: int, length: Tensor, kept: Tensor, size: int, inner: Tensor, interpolation: str
) -> tuple[Tensor, Tensor]:
    """Along one side, what each of `size` pixels of the result is made of: (size, count) float32, and whether it is
    among the `inner` ones in the middle, (size,) bool.

    Args:
        count, length: pixels of the picture, as a number of the program and as one of the graph.
        kept: how many of them, in the middle, become the `inner` ones.
        interpolation: the filter, as wide as Pillow makes it: wider where the picture shrinks.
    """
    scale = kept / inner
    first = torch.floor((size - inner) / 2)
    own = torch.arange(size, dtype=torch.float64) - first
    centers = (length - kept) / 2 + (own + 0.5) * scale
    inside = (own >= 0) & (own < inner)
    places = torch.arange(count, dtype=torch.float64)
    if interpolation == "nearest":
        weights = (places[None] == centers.floor()[:, None]).float()
        return weights, inside
    distance = (places[None] + 0.5 - centers[:, None]).abs() / scale.clamp(min=1)
    weights = torch.where(distance < HALF[interpolation], FILTERS[interpolation](distance), 0.0)
    total = weights.sum(1, keepdim=True)
    return (weights / torch.where(total == 0, 1.0, total)).float(), inside


def _bicubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far)


def _lanczos(x: Tensor) -> Tensor:
    """sinc(x) sinc(x / 3)."""
    angle = torch.where(x == 0, 1.0, x * math.pi)
    return torch.where(x == 0, 1.0, 3 * angle.sin() * (angle / 3).sin() / angle.square())


FILTERS = {"bilinear": lambda x: 1 - x, "bicubic": _bicubic, "lanczos": _lanczos}
