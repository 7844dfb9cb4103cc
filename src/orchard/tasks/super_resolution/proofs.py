"""Losses as official codes train by them, on the values of the network, as the proofs of cards call them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from orchard.tasks.super_resolution.adversarial import AdversarialSettings
from orchard.tasks.super_resolution.adversarial_objective import AdversarialSuperResolution
from orchard.tasks.super_resolution.textures import describe_frozen, transferal_loss
from orchard.weights.adapters.adversarial_pair_in_training import call_in_training


def l1(model: Any, images: Tensor, high: Tensor) -> Tensor:
    """The mean absolute difference, a scalar."""
    return F.l1_loss(model(images), high)


def mse(model: Any, images: Tensor, high: Tensor) -> Tensor:
    """The mean squared difference, a scalar."""
    return F.mse_loss(model(images), high)


def l1_of_each_scale(model: Any, images: Tensor, **high: Tensor) -> dict[str, Tensor]:
    """The mean absolute difference at each scale, such as `x2`, alone."""
    return {name: F.l1_loss(model.upscale(images, int(name[1:])), truth) for name, truth in high.items()}


def srgan(model: Any, images: Tensor, high: Tensor) -> dict[str, Tensor]:
    """The losses of one step of leftthomas/SRGAN without VGG's, both networks in training mode."""
    settings = AdversarialSettings(loss="probabilities", total_variation_weight=2e-8)
    objective = AdversarialSuperResolution(settings, "mse", None)
    found = call_in_training(model.generator, images)
    fake, fixed, real = (call_in_training(model.discriminator, x) for x in (found, found.detach(), high))
    terms = objective.terms(found, high, fake)
    judged = objective.adversarial.discriminator(real, fixed)
    return {**terms, "generator": objective.total(terms), "discriminator": judged}


def magnitude_of_first(model: Any, images: Tensor) -> Tensor:
    """The mean absolute value of what the first task of a network with several gives: a scalar to take gradients of."""
    return model(images)[0].abs().mean()  # type: ignore[no-any-return]


def textures(
    model: Any, images: Tensor, reference: Tensor, enlarged: Tensor, blurred: Tensor, high: Tensor
) -> dict[str, Tensor]:  # fmt: skip
    """TTSR's losses of pixels and of transferred textures, each a scalar."""
    found = model.textures(images, reference, enlarged, blurred)
    made = model.synthesise(images, found)
    described = describe_frozen(model.extractor, made)
    return {"reconstruction": F.l1_loss(made, high), "transferal": transferal_loss(described, found.levels)}
