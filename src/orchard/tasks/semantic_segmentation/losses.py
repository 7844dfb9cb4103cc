"""Losses of pixels: cross entropy and dice, both without what is ignored."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from orchard.data.masks.contracts import IGNORED

EPS = 1e-6


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the pixels that are not ignored, each with the weight of its class; 0 where there are none.

    logits (B, K, H, W), masks (B, H, W) int64, weights (K,).
    """
    total = F.cross_entropy(logits.float(), masks, weights, ignore_index=IGNORED, reduction="sum")
    kept = masks != IGNORED
    counted = kept.sum() if weights is None else weights[masks[kept]].sum()
    return total / counted.clamp(min=EPS)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - the dice coefficient of all classes, pixels and pictures of a batch together (milesial/Pytorch-UNet).

    logits (B, K, H, W), masks (B, H, W) int64.
    """
    kept = (masks != IGNORED)[:, None]
    truth = F.one_hot(masks.where(kept[:, 0], 0), logits.shape[1]).movedim(-1, 1) * kept
    return 1 - dice_coefficient(logits.float().softmax(1) * kept, truth)


def dice_coefficient(predicted: Tensor, truth: Tensor) -> Tensor:
    """Twice what two sets share over the sum of their sizes, of shares of membership; 1 where both are empty."""
    shared = 2 * (predicted * truth).sum()
    sizes = predicted.sum() + truth.sum()
    return (shared + EPS) / (sizes.where(sizes != 0, shared) + EPS)
