"""Adversarial losses: what a discriminator and a generator each minimise, given the scores of images.

Scores are unbounded and larger for real images. Every pair of losses is for any pair of networks; what else holds a
discriminator back is a regulariser (regularisers.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """Two functions of scores (B,), each a scalar to minimise.

    `middle` is the score between what the discriminator aims at for real and for generated images; None where only
    differences of scores count. `labels` says that it aims at one number for each, which smoothing can move.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]  # of the scores of real and of generated images
    generator: Callable[[Tensor], Tensor]  # of the scores of generated images
    middle: float | None = 0.0
    labels: bool = False

    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """The share of real images scored above the middle and of generated ones below, a scalar in [0, 1].

        Where only differences count, the middle is that of the two means.
        """
        middle = (real.mean() + fake.mean()) / 2 if self.middle is None else self.middle
        return ((real > middle).float().mean() + (fake < middle).float().mean()) / 2


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


def pearson_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distances to 1 for real and -1 for generated images (Mao et al. 2016, equation 8)."""
    return 0.5 * ((real - 1).square().mean() + (fake + 1).square().mean())


def pearson_generator(fake: Tensor) -> Tensor:
    """Half the squared distance to 0, so that the pair minimises Pearson's χ² (Mao et al. 2016, equation 8)."""
    return 0.5 * fake.square().mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Nothing for scores beyond 1 and -1 (Lim and Ye 2017, arXiv:1705.02894, as SAGAN and BigGAN have it)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Minus the difference of the mean scores (Arjovsky et al. 2017, arXiv:1701.07875, equation 2)."""
    return fake.mean() - real.mean()


def score_generator(fake: Tensor) -> Tensor:
    """Minus the mean score: the generator's side of the hinge and of the Wasserstein loss."""
    return -fake.mean()


def loss_sensitive_discriminator(real: Tensor, fake: Tensor, leak: float = 0.0) -> Tensor:
    """By how much each generated image scores above the real one beside it, and `leak` times by how much below.

    With a margin added to `fake` (`raised_by_margin`) this is the loss of LS-GAN, whose L(x) is minus our score (Qi
    2017, arXiv:1701.06264; without the mean of L over real images, to which the authors' code gives no weight), and
    with a leak GLS-GAN's (appendix D). A leak of 1 is the Wasserstein loss.
    """
    return F.leaky_relu(fake - real, leak).mean()


def raised_by_margin(fake_scores: Tensor, real: Tensor, fake: Tensor, margin: float) -> Tensor:
    """Scores (B,) of generated images as if they were higher by their distance from the real image beside them.

    The distance is the mean absolute difference of values, so that one `margin` suits all sizes of image; LS-GAN's Δ is
    the sum. A loss that wants them lower than those of real images then wants them lower by that margin.
    """
    return fake_scores + margin * (real - fake).abs().flatten(1).mean(1)


def smoothing_term(real_scores: Tensor, smoothing: float) -> Tensor:
    """What moves the label of real images from 1 to 1 - `smoothing` (Salimans et al. 2016, arXiv:1606.03498, 3.4).

    For a score r, -(1 - α) log D - α log(1 - D) is -log D + α r, and ½ (r - 1 + α)² is ½ (r - 1)² + α r but for a
    constant: the same term for both kinds of labels.
    """
    return smoothing * real_scores.mean()


def drift_term(real_scores: Tensor) -> Tensor:
    """The mean squared score of real images, which keeps the scores of a Wasserstein loss from drifting away.

    Karras et al. 2017 (arXiv:1710.10196, appendix A.1), which weighs it by 0.001.
    """
    return real_scores.square().mean()


def matched_features(real: Tensor, fake: Tensor) -> Tensor:
    """The squared distance of the mean features (B, D) of two batches (Salimans et al. 2016, section 3.1)."""
    return (real.mean(0) - fake.mean(0)).square().sum()


LOSSES = {
    "minimax": AdversarialLoss(log_discriminator, saturating_generator, labels=True),
    "non-saturating": AdversarialLoss(log_discriminator, non_saturating_generator, labels=True),
    "least-squares": AdversarialLoss(squares_discriminator, squares_generator, middle=0.5, labels=True),
    "least-squares-pearson": AdversarialLoss(pearson_discriminator, pearson_generator, labels=True),
    "hinge": AdversarialLoss(hinge_discriminator, score_generator),
    "wasserstein": AdversarialLoss(wasserstein_discriminator, score_generator, middle=None),
    "loss-sensitive": AdversarialLoss(loss_sensitive_discriminator, score_generator, middle=None),
}


def with_leak(loss: AdversarialLoss, leak: float) -> AdversarialLoss:
    """The loss-sensitive loss with another slope below zero."""
    return replace(loss, discriminator=partial(loss_sensitive_discriminator, leak=leak))
