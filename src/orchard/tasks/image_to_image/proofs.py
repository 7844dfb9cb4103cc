"""Losses as official codes train by them, networks in training mode, as the proofs of cards call them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from orchard.weights.adapters.adversarial_pair_in_training import call_in_training


def filled_l1(model: Any, images: Tensor, known: Tensor, truth: Tensor) -> Tensor:
    """The mean absolute difference of what an inpainting network makes, a scalar."""
    found: Any = call_in_training(model, images, known)
    return F.l1_loss(found.images, truth)
