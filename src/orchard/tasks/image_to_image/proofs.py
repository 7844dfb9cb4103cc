"""Losses as official codes train by them, networks in training mode, as the proofs of cards call them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.tasks.image_to_image.adversarial_inpainting import LOSS, pixel_loss
from orchard.weights.adapters.adversarial_pair_in_training import call_in_training


def filled_l1(model: Any, images: Tensor, known: Tensor, truth: Tensor) -> Tensor:
    """The mean absolute difference of what an inpainting network makes, a scalar."""
    found: Any = call_in_training(model, images, known)
    return F.l1_loss(found.images, truth)


def context_encoder(model: Any, images: Tensor, known: Tensor) -> dict[str, Tensor]:
    """The losses of both networks of a context encoder, as the port has them, which weighs pixels twice."""
    weight, overlap = 0.998, 10.0
    drawn, real = call_in_training(model.generator, model.blanked(images, known)), model.part(images)
    judged, fake = (call_in_training(model.discriminator, x) for x in (real, drawn.detach()))
    pixels = weight * pixel_loss(drawn, real, model.part(known), overlap)
    adversarial = LOSS.generator(call_in_training(model.discriminator, drawn))
    ones, zeros = torch.ones_like(judged), torch.zeros_like(fake)
    entropy = F.binary_cross_entropy_with_logits
    return {
        "real": entropy(judged, ones),
        "fake": entropy(fake, zeros),
        "discriminator": LOSS.discriminator(judged, fake),
        "adversarial": adversarial,
        "pixels": pixels,
        "generator": (1 - weight) * adversarial + weight * pixels,
    }
