"""Path-length regularisation: a step in style space changes an image by as much everywhere and in every direction.

Karras et al. 2019 (arXiv:1912.04958, section 3.2). For any generator with styles between noise and images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DECAY = 0.01  # share of a batch's mean length in the running mean
SHRINK = 2  # times that the batch is smaller than that of the other losses, as in official code


def path_lengths(synthesise: Callable[[Tensor], Tensor], latents: Tensor, noise: Tensor) -> Tensor:
    """How far images move in a random direction as their styles do, (B,), which can be differentiated again.

    Args:
        synthesise: styles (B, L, D) → images (B, C, H, W).
        latents: (B, L, D), part of a graph.
        noise: standard normal, of the shape of the images.

    The norm of J'y of equation 4, by the product of one image and y. The square is summed over D and, as in official
    code, averaged over the layers L.
    """
    images = synthesise(latents)
    direction = noise / (images.shape[2] * images.shape[3]) ** 0.5
    (slopes,) = torch.autograd.grad((images * direction).sum(), latents, create_graph=True)
    return slopes.float().square().sum(2).mean(1).sqrt()


def path_penalty(lengths: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The mean squared distance of lengths (B,) from their running mean, and that mean after this batch, scalars.

    The new mean is what lengths are compared with, and has its part in the gradient, as in official code.
    """
    new = mean + DECAY * (lengths.mean() - mean)
    return (lengths - new).square().mean(), new.detach()
