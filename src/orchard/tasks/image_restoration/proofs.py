"""Losses as official codes train by them, networks in training mode, as the proofs of cards call them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from orchard.weights.adapters.adversarial_pair_in_training import call_in_training


def l1(model: Any, images: Tensor, clean: Tensor) -> Tensor:
    """The mean absolute difference, a scalar."""
    return F.l1_loss(call_in_training(model, images), clean)


def squares(model: Any, images: Tensor, clean: Tensor) -> Tensor:
    """Half the squared difference, summed over an image and averaged over images (equation 1 of DnCNN)."""
    return F.mse_loss(call_in_training(model, images), clean, reduction="sum") / (2 * len(images))
