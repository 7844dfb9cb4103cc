"""Losses as official codes train by them, on the values of the network, as the proofs of cards call them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from orchard.tasks.super_resolution.textures import describe_frozen, transferal_loss


def l1(model: Any, images: Tensor, high: Tensor) -> Tensor:
    """The mean absolute difference, a scalar."""
    return F.l1_loss(model(images), high)


def mse(model: Any, images: Tensor, high: Tensor) -> Tensor:
    """The mean squared difference, a scalar."""
    return F.mse_loss(model(images), high)


def l1_of_each_scale(model: Any, images: Tensor, **high: Tensor) -> dict[str, Tensor]:
    """The mean absolute difference at each scale, such as `x2`, alone."""
    return {name: F.l1_loss(model.upscale(images, int(name[1:])), truth) for name, truth in high.items()}


def textures(
    model: Any, images: Tensor, reference: Tensor, enlarged: Tensor, blurred: Tensor, high: Tensor
) -> dict[str, Tensor]:  # fmt: skip
    """TTSR's losses of pixels and of transferred textures, each a scalar."""
    found = model.textures(images, reference, enlarged, blurred)
    made = model.synthesise(images, found)
    described = describe_frozen(model.extractor, made)
    return {"reconstruction": F.l1_loss(made, high), "transferal": transferal_loss(described, found.levels)}
