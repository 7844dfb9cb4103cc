"""What is added to a discriminator's loss so that its scores do not become too steep."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]  # images (B, C, H, W) → scores (B,)
Regulariser = Callable[[Score, Tensor, Tensor], Tensor]  # of a discriminator, real and generated images: a scalar


def slopes(discriminator: Score, images: Tensor) -> Tensor:
    """The norm of each score's gradient by its own image, (B,), which can be differentiated again."""
    images = images.detach().requires_grad_()
    # A sample's score depends on its own image alone, so the gradient of the sum holds all of them. (Batch norm in a
    # discriminator breaks this.)
    (gradients,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradients.flatten(1).norm(dim=1)


def gradient_penalty(discriminator: Score, real: Tensor, fake: Tensor, epsilon: Tensor) -> Tensor:
    """The mean squared distance of the slope from 1 between real and generated images, a scalar.

    Args:
        discriminator: images (B, C, H, W) → scores (B,).
        real, fake: (B, C, H, W); they are taken in pairs.
        epsilon: (B, 1, 1, 1) in [0, 1], the share of the real image in each interpolate.

    Gulrajani et al. 2017 (arXiv:1704.00028), equation 3, without its factor λ.
    """
    return (slopes(discriminator, epsilon * real + (1 - epsilon) * fake) - 1).square().mean()


def interpolated_penalty(discriminator: Score, real: Tensor, fake: Tensor) -> Tensor:
    """`gradient_penalty` at a random point between each pair of images (algorithm 1, lines 4 to 7)."""
    return gradient_penalty(discriminator, real, fake, torch.rand(len(real), 1, 1, 1, device=real.device))


def real_penalty(discriminator: Score, real: Tensor, fake: Tensor) -> Tensor:
    """R1: half the mean squared slope at real images (Mescheder et al. 2018, arXiv:1801.04406, equation 9)."""
    return 0.5 * slopes(discriminator, real).square().mean()


REGULARISERS: dict[str, Regulariser] = {"gradient-penalty": interpolated_penalty, "r1": real_penalty}
