"""Losses as official codes train by them, on the values of the network, as the proofs of cards call them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def l1(model: Any, images: Tensor, high: Tensor) -> Tensor:
    """The mean absolute difference, a scalar."""
    return F.l1_loss(model(images), high)


def mse(model: Any, images: Tensor, high: Tensor) -> Tensor:
    """The mean squared difference, a scalar."""
    return F.mse_loss(model(images), high)


def l1_of_each_scale(model: Any, images: Tensor, **high: Tensor) -> dict[str, Tensor]:
    """The mean absolute difference at each scale, such as `x2`, alone."""
    return {name: F.l1_loss(model.upscale(images, int(name[1:])), truth) for name, truth in high.items()}


def magnitude_of_first(model: Any, images: Tensor) -> Tensor:
    """The mean absolute value of what the first task of a network with several gives: a scalar to take gradients of."""
    return model(images)[0].abs().mean()  # type: ignore[no-any-return]
