"""Learning from two sets with attention: translators and discriminators that tell the sides apart on their way.

Kim et al. 2019 (arXiv:1907.10830, section 3.2), weighed as in the authors' code. In every step all discriminators learn
first, then both generators, which make their pictures anew.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.two_sides.loader import SidesBatch
from orchard.models.translation.contract import Attended
from orchard.nn.feature_quantizer import QuantizedFeatures
from orchard.report.run_page import Curve
from orchard.tasks.image_to_image.settings import AttentionSettings, Settings
from orchard.tasks.image_to_image.unpaired import METRICS
from orchard.tasks.unconditional_image_generation import dictionaries
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.training.phases import Phase

NEEDS = "generators and discriminators of both directions that attend"
PAIRED = False
METRIC = "fid"  # of the task's, that of its trainings
# Of official files.
NETWORKS = {name: f"{name}." for name in ("genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB")}

Said = list[Tensor]  # scores and logits of all discriminators of a side


def suits(model: nn.Module) -> bool:
    """Do the model's networks of both directions attend?"""
    return hasattr(model, "attend") and hasattr(model, "generators") and hasattr(model, "discriminators")


def real_loss(said: Said) -> Tensor:
    """The squared distances to 1, summed over what was said."""
    return torch.stack([(one - 1).square().mean() for one in said]).sum()


def fake_loss(said: Said) -> Tensor:
    """The squared distances to 0."""
    return torch.stack([one.square().mean() for one in said]).sum()


def settle(learner: Any) -> None:
    """What the model asks for after each update of its generators."""
    learner.model.settle()


class Attention:
    """The phases of a training, of a `GenerationLearner`."""

    def __init__(self, settings: AttentionSettings, model: nn.Module):
        self.settings = settings
        self.dictionaries = dictionaries.dictionaries_of(model.get_submodule("discriminators"))
        self.phases = (
            Phase("discriminators", self.discriminators_loss, ("model.discriminators.",), "discriminators"),
            Phase("generators", self.generators_loss, ("model.generators.",), after=settle),
        )
        self.curves: tuple[Curve, ...] = (
            Curve("Discriminators' loss", "loss", "sum of both sides"),
            Curve("Generators' loss", "generators_loss", "weighted sum"),
            Curve("There and back", "cycle_loss", "absolute difference, -1 to 1", falling=True),
            Curve("Identity", "identity_loss", "absolute difference, -1 to 1", falling=True),
            Curve("Attention", "attention_loss", "cross-entropy of the side, both directions", falling=True),
            Curve("Generators' adversarial loss", "adversarial_loss", "sum of all discriminators"),
            Curve("Score of real pictures", "score_real", "score"),
            Curve("Score of generated pictures", "score_fake", "score"),
            *(dictionaries.CURVES if self.dictionaries else ()),
        )
        self.logged = (*METRICS, *(curve.column for curve in self.curves if curve.column != "loss"))

    def describe(self) -> str:
        s = self.settings
        parts = (
            f"least-squares loss x {s.adversarial_weight:g}, {s.cycle_weight:g} x there and back, "
            f"{s.identity_weight:g} x identity, {s.attention_weight:g} x attention"
        )
        return f"{parts}, {dictionaries.describe(self.dictionaries)}" if self.dictionaries else parts

    def discriminators_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Of both sides, real pictures against those that the generators, which are fixed, make of the other side's."""
        model = learner.model
        with torch.no_grad():
            made = {"B": model.generators["AtoB"](batch.a).float(), "A": model.generators["BtoA"](batch.b).float()}
        heard: list[QuantizedFeatures] | None = [] if self.dictionaries else None
        losses, reals, fakes = [], [], []
        for side, real in (("A", batch.a), ("B", batch.b)):
            said_real, said_fake = (said_of(model, side, images, heard) for images in (real, made[side]))
            losses.append(real_loss(said_real) + fake_loss(said_fake))
            reals.append(said_real[0].detach().mean())  # scores of the global discriminator
            fakes.append(said_fake[0].detach().mean())
        loss = self.settings.adversarial_weight * torch.stack(losses).sum()
        metrics = {"score_real": torch.stack(reals).mean(), "score_fake": torch.stack(fakes).mean()}
        if heard:
            loss = loss + dictionaries.loss_of(heard)
            metrics |= dictionaries.metrics_of(model.discriminators, heard)
        return loss, metrics

    def generators_loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of both directions, and its parts before their weights."""
        s, model = self.settings, learner.model
        there, back = (model.generators[direction] for direction in ("AtoB", "BtoA"))
        b, a = there.attend(batch.a), back.attend(batch.b)
        same_b, same_a = there.attend(batch.b), back.attend(batch.a)
        released = any(one.behaviour == "released" for one in self.dictionaries)
        heard: list[QuantizedFeatures] | None = [] if released else None
        parts = {
            "adversarial_loss": real_loss(said_of(model, "A", a.images, heard))
            + real_loss(said_of(model, "B", b.images, heard)),
            "cycle_loss": distance(back(b.images), batch.a) + distance(there(a.images), batch.b),
            "identity_loss": distance(same_a.images, batch.a) + distance(same_b.images, batch.b),
            "attention_loss": told_apart(a, same_a) + told_apart(b, same_b),
        }
        weights = (s.adversarial_weight, s.cycle_weight, s.identity_weight, s.attention_weight)
        loss = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        if heard:
            loss = loss + dictionaries.loss_of(heard)
        return loss, {name: part.detach() for name, part in parts.items()}


def said_of(model: Any, side: str, images: Tensor, heard: list[QuantizedFeatures] | None) -> Said:
    """Scores and logits of all discriminators of a side, in float32; the global one's scores are first."""
    return [part.float() for one in model.discriminators[side](images, heard) for part in (one.scores, one.logits)]


def told_apart(translated: Attended, same: Attended) -> Tensor:
    """A generator's classifier shall say 1 of pictures to translate, and 0 of those of the side that it makes."""
    entropy = F.binary_cross_entropy_with_logits
    yes, no = translated.logits.float(), same.logits.float()
    return entropy(yes, torch.ones_like(yes)) + entropy(no, torch.zeros_like(no))


def distance(made: Tensor, given: Tensor) -> Tensor:
    return F.l1_loss(made.float(), given)


def make_objective(settings: Settings, model: nn.Module) -> Attention:
    return Attention(settings.attention, model)


def make_learner(model: Any, settings: Settings) -> GenerationLearner:
    size = model.config.image_size
    return GenerationLearner(cast(nn.Module, model), (model.channels("A"), size, size))
