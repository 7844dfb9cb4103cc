"""Learning to fill holes against a discriminator of what was drawn there (Pathak et al. 2016, arXiv:1604.07379).

Equations 1 to 3, with the weights of the authors' code. In every step the discriminator learns first.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from orchard.data.two_sides.loader import SidesBatch
from orchard.models.translation.inpainting import COLOURS
from orchard.report.run_page import Curve
from orchard.tasks.image_to_image.inpainting import (
    COLOURED,
    METRIC,
    METRICS,
    PAIRED,
    figures,
    make_given,
    prepare,
    summary,
    tell,
)  # fmt: skip
from orchard.tasks.image_to_image.settings import AdversarialInpaintingSettings, Settings
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.tasks.unconditional_image_generation.losses import LOSSES
from orchard.training.phases import Phase

__all__ = [
    "COLOURED", "METRIC", "METRICS", "NEEDS", "NETWORKS", "PAIRED", "figures", "make_given", "make_learner",
    "make_objective", "prepare", "suits", "summary", "tell",
]  # fmt: skip

NEEDS = "a way to fill holes and a discriminator of that"
NETWORKS = {"G": "netG.", "D": "netD."}  # of official files
LOSS = LOSSES["non-saturating"]
DISCRIMINATOR = "discriminator"  # its phase and its optimizer


def suits(model: nn.Module) -> bool:
    return hasattr(model, "fill") and hasattr(model, "discriminator")


def pixel_loss(drawn: Tensor, truth: Tensor, known: Tensor, overlap_weight: float) -> Tensor:
    """The mean squared difference of what was drawn, (B, 3, D, D); known pixels, (B, 1, D, D), weigh otherwise."""
    weights = torch.where(known > 0, overlap_weight, 1.0)
    return ((drawn - truth).square() * weights).mean()


class AdversarialInpainting:
    """The phases of a training, of a `GenerationLearner`."""

    curves = (
        Curve("Generator's loss", "generator_loss", "weighted sum"),
        Curve("Pixels", "pixel_loss", "squared difference, -1 to 1", falling=True),
        Curve("Generator's adversarial loss", "adversarial_loss", "of the discriminator's scores"),
        Curve("Discriminator's loss", "loss", "of real and drawn parts"),
        Curve("Score of real parts", "score_real", "score"),
        Curve("Score of drawn parts", "score_fake", "score"),
    )

    def __init__(self, settings: AdversarialInpaintingSettings):
        self.settings = settings
        self.lr_shares = {DISCRIMINATOR: settings.discriminator_share}
        self.phases = (
            Phase(DISCRIMINATOR, self.discriminator_loss, ("model.discriminator.",), DISCRIMINATOR),
            Phase("generator", self.generator_loss, ("model.generator.",)),
        )
        self.logged = (*METRICS, *(curve.column for curve in self.curves if curve.column != "loss"))

    def describe(self) -> str:
        weight = self.settings.pixel_weight
        return f"holes to draw by {weight:g} x pixels and {1 - weight:g} x a discriminator"

    def discriminator_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Real parts against those that the generator, which is fixed, drew."""
        model, known = learner.model, batch.a[:, COLOURS:]
        with torch.no_grad():
            drawn = model.generator(model.blanked(batch.b, known))
        real, fake = (model.discriminator(x).float() for x in (model.part(batch.b), drawn))
        scores = {"score_real": real.detach().mean(), "score_fake": fake.detach().mean()}
        return LOSS.discriminator(real, fake), scores

    def generator_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and both parts before their weights."""
        model, s, known = learner.model, self.settings, batch.a[:, COLOURS:]
        drawn = model.generator(model.blanked(batch.b, known))
        adversarial = LOSS.generator(model.discriminator(drawn).float())
        # Of a whole image, what is known far from the hole is of no interest.
        weight = 0.0 if model.config.whole else s.overlap_weight
        pixels = pixel_loss(drawn.float(), model.part(batch.b), model.part(known), weight)
        parts = {"adversarial_loss": adversarial.detach(), "pixel_loss": pixels.detach()}
        return (1 - s.pixel_weight) * adversarial + s.pixel_weight * pixels, parts


def make_objective(settings: Settings, model: nn.Module) -> AdversarialInpainting:
    return AdversarialInpainting(settings.adversarial_inpainting)


def make_learner(model: Any, settings: Settings) -> GenerationLearner:
    size = model.config.image_size
    return GenerationLearner(cast(nn.Module, model), (COLOURS, size, size))
