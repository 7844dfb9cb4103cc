"""Adversarial losses: what a discriminator and a generator each minimise, given the scores of images.

Scores are unbounded and larger for real images. Every pair of losses is for any pair of networks; what else holds a
discriminator back is a regulariser (regularisers.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """Two functions of scores (B,), each a scalar to minimise."""

    discriminator: Callable[[Tensor, Tensor], Tensor]  # of the scores of real and of generated images
    generator: Callable[[Tensor], Tensor]  # of the scores of generated images


def log_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), D being the sigmoid of a score (Goodfellow et al. 2014, equation 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def saturating_generator(fake: Tensor) -> Tensor:
    """log(1 - D(G(z))), flat where the discriminator is sure (Goodfellow et al. 2014, equation 1)."""
    return -F.softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """-log D(G(z)), steep where the discriminator is sure (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distances to 1 for real and 0 for generated images (Mao et al. 2016, equation 9)."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def squares_generator(fake: Tensor) -> Tensor:
    """Half the squared distance to 1 (Mao et al. 2016, equation 9)."""
    return 0.5 * (fake - 1).square().mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Nothing for scores beyond 1 and -1 (Lim and Ye 2017, arXiv:1705.02894, as SAGAN and BigGAN have it)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Minus the difference of the mean scores (Arjovsky et al. 2017, arXiv:1701.07875, equation 2)."""
    return fake.mean() - real.mean()


def score_generator(fake: Tensor) -> Tensor:
    """Minus the mean score: the generator's side of the hinge and of the Wasserstein loss."""
    return -fake.mean()


LOSSES = {
    "minimax": AdversarialLoss(log_discriminator, saturating_generator),
    "non-saturating": AdversarialLoss(log_discriminator, non_saturating_generator),
    "least-squares": AdversarialLoss(squares_discriminator, squares_generator),
    "hinge": AdversarialLoss(hinge_discriminator, score_generator),
    "wasserstein": AdversarialLoss(wasserstein_discriminator, score_generator),
}
