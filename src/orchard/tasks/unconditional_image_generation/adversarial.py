"""Adversarial objectives: a generator and a discriminator learn from each other.

Goodfellow et al. 2014 (arXiv:1406.2661). In every step the discriminator learns to tell real images from generated
ones, once or several times, then the generator to make images that score higher. Loss, regulariser and the number of
updates are chosen apart (settings.py has the combinations of the papers); the pair may be any with `generator`,
`discriminator` and `sample_noise`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.inference.generators import generators
from orchard.report.run_page import Curve
from orchard.tasks.unconditional_image_generation import styles
from orchard.tasks.unconditional_image_generation.losses import LOSSES
from orchard.tasks.unconditional_image_generation.path_length import SHRINK, path_lengths, path_penalty
from orchard.tasks.unconditional_image_generation.regularisers import REGULARISERS
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings, Options, Settings
from orchard.training.phases import Phase
from orchard.training.settings import ADAM, OptimizerSettings

NEEDS = "a generator and a discriminator"
DISCRIMINATOR = "discriminator"  # its optimizer
PATH_LENGTH = "path_length"  # the learner's buffer of its running mean


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
        straightening = Phase("path_length", self.path_length_loss, ("model.generator.",), every=s.path_length_every)
        self.phases: tuple[Phase, ...] = (
            judging, *([regularising] if self.lazy else []), making, *([straightening] if s.path_length_weight else [])
        )  # fmt: skip
        # What the learner keeps for it, and with it the checkpoints.
        self.memory: dict[str, Tensor] = {PATH_LENGTH: torch.zeros(())} if s.path_length_weight else {}
        self.curves: tuple[Curve, ...] = (
            Curve("Discriminator's loss", "loss", self.settings.loss),
            Curve("Generator's loss", "generator_loss", self.settings.loss),
            Curve("Score of real images", "score_real", "score"),
            Curve("Score of generated images", "score_fake", "score"),
        )
        if self.regulariser is not None:
            self.curves += (Curve("Regulariser", "regulariser", "before its weight", falling=True),)
        if s.path_length_weight:
            self.curves += (Curve("Path length", "path_length", "running mean"),)
        self.logged = tuple(curve.column for curve in self.curves[1:])

    def describe(self) -> str:
        s = self.settings
        parts = [f"{s.loss} loss"]
        if self.regulariser is not None:
            parts.append(f"{s.regulariser} x {s.regulariser_weight:g}")
        if s.path_length_weight:
            parts.append(f"path length x {s.path_length_weight:g}")
        if s.discriminator_steps > 1:
            parts.append(f"{s.discriminator_steps} discriminator steps for one of the generator")
        return ", ".join(parts)

    def optimizer_settings(self, name: str, common: OptimizerSettings) -> OptimizerSettings:
        """The discriminator may have a learning rate of its own (Heusel et al. 2017, arXiv:1706.08500).

        With `lazy_correction`, n steps with one more update by a regulariser are to be as n + 1 updates would be in n
        steps: learning rate times n / (n + 1), Adam's betas to that power (StyleGAN2, appendix B).
        """
        s = self.settings
        if name == DISCRIMINATOR and s.discriminator_lr is not None:
            common = common.model_copy(update={"lr": s.discriminator_lr})
        every = s.path_length_every if s.path_length_weight else 0
        if name == DISCRIMINATOR:
            every = s.regulariser_every if self.lazy else 0
        if not (s.lazy_correction and every):
            return common
        share = every / (every + 1)
        update = {"lr": common.lr * share}
        if common.name in ADAM:
            update |= {"momentum": common.momentum**share, "beta2": common.beta2**share}
        return common.model_copy(update=update)

    def make(self, pair: Any, batch: ImageBatch) -> Tensor:
        """As many generated images as the batch has real ones, with the styles of two noises where they are mixed."""
        noise = noise_for(pair, batch)
        if not self.settings.mixing:
            images: Tensor = pair(*noise)
            return images
        return cast(Tensor, pair.synthesise(styles.training_latents(pair, noise[0], self.settings.mixing)))

    def discriminator_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversarial loss, with the regulariser unless that has a phase of its own; the generator is fixed."""
        pair, real = learner.model, batch.images
        with torch.no_grad():
            fake = self.make(pair, batch)
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
            fake = self.make(pair, batch)
        penalty = self.regulariser(scores_for(pair, batch), batch.images, fake)
        weight = self.settings.regulariser_weight * self.settings.regulariser_every
        # The log's means are over all steps, also those without this phase.
        return weight * penalty, {"regulariser": penalty.detach() * self.settings.regulariser_every}

    def generator_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of as many generated images as the batch has real ones, of which only the labels are used."""
        pair = learner.model
        kept = {name: learner.get_buffer(name).clone() for name in self.memory}
        return self.loss.generator(scores_for(pair, batch)(self.make(pair, batch))), kept

    def path_length_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The path-length regulariser of fewer images, weighted by the steps that pass between two of its updates."""
        pair, running = learner.model, learner.get_buffer(PATH_LENGTH)
        noise = pair.sample_noise(max(1, len(batch) // SHRINK), device=batch.images.device)
        latents = styles.training_latents(pair, noise, self.settings.mixing)
        direction = torch.randn(len(noise), *batch.images.shape[1:], device=batch.images.device)
        penalty, mean = path_penalty(path_lengths(pair.synthesise, latents, direction), running)
        running.copy_(mean)
        return self.settings.path_length_weight * self.settings.path_length_every * penalty, {}


def make_objective(settings: Settings, model: nn.Module) -> Adversarial:
    styles.check_settings(settings.adversarial, model)
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
    styles.check_options(model, options)
    return 1


@torch.no_grad()
def generate(model: Any, seed: int, numbers: Sequence[int], options: Options) -> Iterator[Tensor]:
    """Images (N, C, H, W) of a pair in evaluation mode; of K classes, where it has any, image n is of class n mod K."""
    if styles.has_styles(model):
        yield styles.generate(model, seed, numbers, options)
        return
    noise = torch.cat([model.sample_noise(1, generator) for generator in generators(seed, numbers)])
    device = next(model.parameters()).device
    classes = getattr(model.config, "num_classes", 0)
    labels = (torch.tensor(numbers, device=device) % classes,) if classes else ()
    yield model.generate(noise.to(device), *labels)
