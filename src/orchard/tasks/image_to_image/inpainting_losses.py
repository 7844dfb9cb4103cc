"""The losses of partial convolutions (Liu et al. 2018, arXiv:1804.07723, equations 2 to 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.nn.pooled_features import gram

Features = Callable[[Tensor], Sequence[Tensor]]


def pixel_losses(found: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Differences in the hole and outside, and total variation of the result; images (B, 3, H, W), known (B, 1, H, W).

    Each of the first two is a sum over its part over the number of all values.
    """
    whole = truth.where(known > 0, found)
    variation = (whole.diff(dim=2).abs().mean()) + (whole.diff(dim=3).abs().mean())
    return {
        "hole": F.l1_loss(found * (1 - known), truth * (1 - known)),
        "valid": F.l1_loss(found * known, truth * known),
        "variation": variation,
    }


def feature_losses(found: Tensor, truth: Tensor, known: Tensor, features: Features) -> dict[str, Tensor]:
    """Perceptual and style losses, each of all that the network made and of the result, in which the known pixels are
    the true ones; sums over the maps that `features` gives."""
    with torch.no_grad():
        wanted = features(truth)
    seen = [features(images) for images in (found, truth.where(known > 0, found))]
    pairs = [pair for maps in seen for pair in zip(maps, wanted, strict=True)]
    return {"perceptual": perceptual(pairs), "style": style(pairs)}


def perceptual(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean absolute differences of features (B, C, H, W), summed."""
    return torch.stack([F.l1_loss(a.float(), b.float()) for a, b in pairs]).sum()


def style(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Those of their Gram matrices."""
    return torch.stack([F.l1_loss(gram(a.float()), gram(b.float())) for a, b in pairs]).sum()
