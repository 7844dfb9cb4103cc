"""Learning from pairs: an adversarial loss of a picture with what it was made of, and the difference of pixels.

Isola et al. 2016 (arXiv:1611.07004), equations 1 to 4. In every step the discriminator learns first, as in official
code.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.two_sides.loader import SidesBatch
from orchard.report.run_page import Curve
from orchard.tasks.image_to_image.losses import LOSSES
from orchard.tasks.image_to_image.settings import PairedSettings, Settings
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.training.phases import Phase

NEEDS = "a generator and a discriminator of pairs"
PAIRED = True
METRIC = "l1"  # of the task's, that of its trainings
METRICS = ("l1", "psnr", "ssim")
NETWORKS = {"G": "generator.", "D": "discriminator."}  # of official files


def suits(model: nn.Module) -> bool:
    """Does the model have both networks?"""
    return hasattr(model, "generator") and hasattr(model, "discriminator")


class Paired:
    """The phases of a training, of a `GenerationLearner`. `direction` says which side of a pair is given."""

    curves = (
        Curve("Generator's loss", "generator_loss", "weighted sum"),
        Curve("Pixels", "pixel_loss", "absolute difference, -1 to 1", falling=True),
        Curve("Generator's adversarial loss", "adversarial_loss", "of the discriminator's scores"),
        Curve("Discriminator's loss", "loss", "of real and generated pictures"),
        Curve("Score of real pairs", "score_real", "score"),
        Curve("Score of generated pictures", "score_fake", "score"),
    )

    def __init__(self, settings: PairedSettings, direction: str):
        self.settings, self.direction = settings, direction
        self.adversarial = LOSSES[settings.loss]
        self.phases = (
            Phase("discriminator", self.discriminator_loss, ("model.discriminator.",), "discriminator"),
            Phase("generator", self.generator_loss, ("model.generator.",)),
        )
        self.logged = (*METRICS, *(curve.column for curve in self.curves if curve.column != "loss"))

    def describe(self) -> str:
        return f"{self.settings.loss} loss and {self.settings.pixel_weight:g} x pixels, {self.direction}"

    def sides(self, batch: SidesBatch) -> tuple[Tensor, Tensor]:
        """What is given and what is wanted."""
        return (batch.a, batch.b) if self.direction == "AtoB" else (batch.b, batch.a)

    def discriminator_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Pairs against pictures with what the generator, which is fixed, made of them."""
        model, (given, wanted) = learner.model, self.sides(batch)
        with torch.no_grad():
            made = model.generator(given)
        # Real and generated pictures are apart: a batch norm would mix them.
        real, fake = (model.discriminator(torch.cat([given, x], 1)).float() for x in (wanted, made))
        scores = {"score_real": real.detach().mean(), "score_fake": fake.detach().mean()}
        return self.adversarial.discriminator(real, fake), scores

    def generator_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and both parts before the weight."""
        model, (given, wanted) = learner.model, self.sides(batch)
        made = model.generator(given)
        adversarial = self.adversarial.generator(model.discriminator(torch.cat([given, made], 1)).float())
        pixels = F.l1_loss(made.float(), wanted)
        parts = {"adversarial_loss": adversarial.detach(), "pixel_loss": pixels.detach()}
        return adversarial + self.settings.pixel_weight * pixels, parts


def make_objective(settings: Settings, model: nn.Module) -> Paired:
    return Paired(settings.paired, settings.direction)


def make_learner(model: Any, settings: Settings) -> GenerationLearner:
    size = model.config.image_size
    return GenerationLearner(cast(nn.Module, model), (model.channels("B"), size, size))
