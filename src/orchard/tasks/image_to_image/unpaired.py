"""Learning from two sets: two adversarial pairs, each way, whose generators undo each other.

Zhu et al. 2017 (arXiv:1703.10593), equations 1 to 3, and section 5.2 of identity. In every step the generators learn
first, together, then both discriminators, of the same pictures and of older ones from a pool, as in official code.
"""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.two_sides.loader import SidesBatch
from orchard.report.run_page import Curve
from orchard.tasks.image_to_image.learner import CycleLearner
from orchard.tasks.image_to_image.losses import LOSSES
from orchard.tasks.image_to_image.settings import Settings, UnpairedSettings
from orchard.training.phases import Phase

NEEDS = "generators and discriminators of both directions"
PAIRED = False
METRIC = "fid"  # of the task's, that of its trainings
METRICS = ("fid", "fid_AtoB", "fid_BtoA", "cycle_l1", "cycle_l1_A", "cycle_l1_B")
NETWORKS = {name: f"{name}." for name in ("G_A", "G_B", "D_A", "D_B")}  # of official files


def suits(model: nn.Module) -> bool:
    """Does the model have networks of both directions?"""
    return hasattr(model, "generators") and hasattr(model, "discriminators")


class Unpaired:
    """The phases of a training, of a `CycleLearner`."""

    curves = (
        Curve("Generators' loss", "loss", "weighted sum"),
        Curve("There and back", "cycle_loss", "absolute difference, -1 to 1", falling=True),
        Curve("Identity", "identity_loss", "absolute difference, -1 to 1", falling=True),
        Curve("Generators' adversarial loss", "adversarial_loss", "sum of both directions"),
        Curve("Discriminators' loss", "discriminators_loss", "sum of both sides"),
        Curve("Score of real pictures", "score_real", "score"),
        Curve("Score of generated pictures", "score_fake", "score"),
    )

    def __init__(self, settings: UnpairedSettings):
        self.settings = settings
        self.adversarial = LOSSES[settings.loss]
        self.phases = (
            Phase("generators", self.generators_loss, ("model.generators.",)),
            Phase("discriminators", self.discriminators_loss, ("model.discriminators.",), "discriminators"),
        )
        self.logged = (*METRICS, *(curve.column for curve in self.curves if curve.column != "loss"))

    def describe(self) -> str:
        s = self.settings
        parts = f"{s.loss} loss, {s.cycle_weight:g} x there and back, {s.cycle_weight * s.identity_weight:g} x identity"
        return f"{parts}, a pool of {s.pool}"

    def generators_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of both directions, and its parts before their weights. What was made is remembered."""
        there, back = (learner.model.generators[direction] for direction in ("AtoB", "BtoA"))
        judges = learner.model.discriminators
        b, a = there(batch.a), back(batch.b)
        adversarial = self.adversarial.generator(judges["B"](b).float()) + self.adversarial.generator(
            judges["A"](a).float()
        )
        cycle = F.l1_loss(back(b).float(), batch.a) + F.l1_loss(there(a).float(), batch.b)
        loss = adversarial + self.settings.cycle_weight * cycle
        parts = {"adversarial_loss": adversarial.detach(), "cycle_loss": cycle.detach()}
        if self.settings.identity_weight:
            identity = F.l1_loss(there(batch.b).float(), batch.b) + F.l1_loss(back(batch.a).float(), batch.a)
            loss = loss + self.settings.cycle_weight * self.settings.identity_weight * identity
            parts["identity_loss"] = identity.detach()
        learner.made.append((a.detach(), b.detach()))
        return loss, parts

    def discriminators_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Of both sides, real pictures against those that the pool gives for what the generators just made."""
        losses, reals, fakes = [], [], []
        for side, real, made in zip(("A", "B"), (batch.a, batch.b), learner.made.pop(0), strict=True):
            judge = learner.model.discriminators[side]
            real_scores, fake_scores = judge(real).float(), judge(learner.pools[side].exchange(made)).float()
            losses.append(self.adversarial.discriminator(real_scores, fake_scores))
            reals.append(real_scores.detach().mean())
            fakes.append(fake_scores.detach().mean())
        return sum(losses[1:], losses[0]), {"score_real": sum(reals[1:], reals[0]) / 2,
                                            "score_fake": sum(fakes[1:], fakes[0]) / 2}  # fmt: skip


def make_objective(settings: Settings, model: nn.Module) -> Unpaired:
    return Unpaired(settings.unpaired)


def make_learner(model: Any, settings: Settings) -> CycleLearner:
    size = model.config.image_size
    return CycleLearner(cast(nn.Module, model), (model.channels("A"), size, size), settings.unpaired.pool)
