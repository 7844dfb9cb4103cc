"""Adversarial losses of patch scores, as official code weighs them: the discriminator's is the mean over both kinds."""

from __future__ import annotations

from orchard.tasks.unconditional_image_generation.losses import LOSSES as SCORE_LOSSES
from orchard.tasks.unconditional_image_generation.losses import AdversarialLoss

_LOG, _SQUARES = SCORE_LOSSES["non-saturating"], SCORE_LOSSES["least-squares"]

LOSSES = {
    # "We divide the objective by 2 while optimizing D" (Isola et al. 2016, section 3.3).
    "non-saturating": AdversarialLoss(lambda real, fake: 0.5 * _LOG.discriminator(real, fake), _LOG.generator),
    # The generator's whole squared distance to 1 (Zhu et al. 2017, section 4).
    "least-squares": AdversarialLoss(_SQUARES.discriminator, lambda fake: 2 * _SQUARES.generator(fake)),
}
