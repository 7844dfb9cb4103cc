"""Adversarial objectives: a generator and a discriminator learn from each other.

Goodfellow et al. 2014 (arXiv:1406.2661). In every step the discriminator learns to tell real images from generated
ones, once or several times, then the generator to make images that score higher. Loss, regulariser and the number of
updates are chosen apart (settings.py has the combinations of the papers); the pair may be any with `generator`,
`discriminator` and `sample_noise`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.inference.generators import generators
from orchard.report.run_page import Curve
from orchard.tasks.unconditional_image_generation.classes import labels_of
from orchard.tasks.unconditional_image_generation.losses import LOSSES
from orchard.tasks.unconditional_image_generation.regularisers import REGULARISERS
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings, Options, Settings
from orchard.training.phases import Phase
from orchard.training.settings import OptimizerSettings

NEEDS = "a generator and a discriminator"
DISCRIMINATOR = "discriminator"  # its optimizer


def suits(model: nn.Module) -> bool:
    """Does the model have both networks?"""
    return hasattr(model, "generator") and hasattr(model, "discriminator")


class Adversarial:
    """The phases of training a pair, which is `learner.model`."""

    def __init__(self, settings: AdversarialSettings):
        self.settings = s = settings
        self.loss = LOSSES[s.loss]
        self.regulariser = REGULARISERS.get(s.regulariser)
        self.lazy = s.regulariser_every > 1 and self.regulariser is not None
        judging = Phase(
            "discriminator", self.discriminator_loss, ("model.discriminator.",), DISCRIMINATOR,
            repeat=s.discriminator_steps, fresh_batch=s.discriminator_steps > 1,
        )  # fmt: skip
        regularising = Phase(
            "regulariser", self.regulariser_loss, ("model.discriminator.",), DISCRIMINATOR, every=s.regulariser_every
        )
        making = Phase("generator", self.generator_loss, ("model.generator.",))
        self.phases: tuple[Phase, ...] = (judging, *([regularising] if self.lazy else []), making)
        self.curves: tuple[Curve, ...] = (
            Curve("Discriminator's loss", "loss", self.settings.loss),
            Curve("Generator's loss", "generator_loss", self.settings.loss),
            Curve("Score of real images", "score_real", "score"),
            Curve("Score of generated images", "score_fake", "score"),
        )
        if self.regulariser is not None:
            self.curves += (Curve("Regulariser", "regulariser", "before its weight", falling=True),)
        self.logged = tuple(curve.column for curve in self.curves[1:])

    def describe(self) -> str:
        s = self.settings
        parts = [f"{s.loss} loss"]
        if self.regulariser is not None:
            parts.append(f"{s.regulariser} x {s.regulariser_weight:g}")
        if s.discriminator_steps > 1:
            parts.append(f"{s.discriminator_steps} discriminator steps for one of the generator")
        return ", ".join(parts)

    def optimizer_settings(self, name: str, common: OptimizerSettings) -> OptimizerSettings:
        """The discriminator may have a learning rate of its own (Heusel et al. 2017, arXiv:1706.08500)."""
        if name != DISCRIMINATOR or self.settings.discriminator_lr is None:
            return common
        return common.model_copy(update={"lr": self.settings.discriminator_lr})

    def discriminator_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversarial loss, with the regulariser unless that has a phase of its own; the generator is fixed."""
        pair, real = learner.model, batch.images
        with torch.no_grad():
            fake = pair(*noise_for(pair, batch))
        score = scores_for(pair, batch)
        # Real and generated images are apart: a batch norm would mix them.
        real_scores, fake_scores = score(real), score(fake)
        loss = self.loss.discriminator(real_scores, fake_scores)
        metrics = {"score_real": real_scores.detach().mean(), "score_fake": fake_scores.detach().mean()}
        if self.regulariser is not None and not self.lazy:
            penalty = self.regulariser(score, real, fake)
            loss = loss + self.settings.regulariser_weight * penalty
            metrics["regulariser"] = penalty.detach()
        return loss, metrics

    def regulariser_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The regulariser alone, weighted by the steps that pass between two of its updates."""
        assert self.regulariser is not None, "a training without a regulariser has no such phase"
        pair = learner.model
        with torch.no_grad():
            fake = pair(*noise_for(pair, batch))
        penalty = self.regulariser(scores_for(pair, batch), batch.images, fake)
        weight = self.settings.regulariser_weight * self.settings.regulariser_every
        # The log's means are over all steps, also those without this phase.
        return weight * penalty, {"regulariser": penalty.detach() * self.settings.regulariser_every}

    def generator_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of as many generated images as the batch has real ones, of which only the labels are used."""
        pair = learner.model
        return self.loss.generator(scores_for(pair, batch)(pair(*noise_for(pair, batch)))), {}


def make_objective(settings: Settings, model: nn.Module) -> Adversarial:
    return Adversarial(settings.adversarial)


def measure(model: nn.Module, batches: Iterable[ImageBatch]) -> dict[str, float]:
    """Nothing: a pair says nothing of real images that could be compared between trainings."""
    return {}


def labels_for(pair: Any, batch: ImageBatch) -> tuple[Tensor, ...]:
    """The labels of a batch, where the pair has classes: both of its networks are called with them too."""
    return (batch.labels,) if getattr(pair.config, "num_classes", 0) else ()


def noise_for(pair: Any, batch: ImageBatch) -> tuple[Tensor, ...]:
    """What a generator makes as many images of as there are in a batch."""
    return (pair.sample_noise(len(batch), device=batch.images.device), *labels_for(pair, batch))


def scores_for(pair: Any, batch: ImageBatch) -> Any:
    """The discriminator as a function of images, given the labels of a batch; scores are float32."""
    labels = labels_for(pair, batch)
    return lambda images: pair.discriminator(images, *labels).float()


def steps(model: nn.Module, options: Options) -> int:
    """One: a generator's."""
    for name in ("steps", "sampler", "eta"):
        if getattr(options, name) is not None:
            raise UsageError(f"option '{name}' is for diffusion models; this model makes an image in one step")
    if options.truncation is not None and not hasattr(model, "truncate"):
        raise UsageError("option 'truncation' is for pairs with classes; the noise of this model is not truncated")
    return 1


@torch.no_grad()
def generate(
    model: Any, seed: int, numbers: Sequence[int], options: Options, labels: Sequence[int] = ()
) -> Iterator[Tensor]:
    """Images (N, C, H, W) of a pair in evaluation mode; if it has classes, of those in `labels`, or of all in turn."""
    noise = torch.cat([model.sample_noise(1, generator) for generator in generators(seed, numbers)])
    device = next(model.parameters()).device
    if options.truncation is not None:
        noise = model.truncate(noise, options.truncation)
    wanted = labels or labels_of(model, numbers)
    yield model.generate(noise.to(device), *([torch.tensor(wanted, device=device)] if wanted else []))
