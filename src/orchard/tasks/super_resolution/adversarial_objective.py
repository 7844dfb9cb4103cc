"""Adversarial super-resolution: the generator learns pixels, features and what the discriminator takes for real.

Ledig et al. 2016 (arXiv:1609.04802), equations 2 and 3. In every step the generator learns first, then the
discriminator, of the same images. It may begin from a network that has learned pixels alone, as the paper's did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from orchard.data.patches import PatchBatch
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.tasks.super_resolution.adversarial import AdversarialSettings
from orchard.tasks.super_resolution.objective import SuperResolution
from orchard.tasks.super_resolution.upscaling import network_of, to_network
from orchard.tasks.unconditional_image_generation.losses import LOSSES as SCORE_LOSSES
from orchard.tasks.unconditional_image_generation.losses import AdversarialLoss
from orchard.training.phases import Phase
from orchard.weights.folders import model_folder
from orchard.weights.portable import WEIGHTS, load_exactly, read_portable
from orchard.weights.quantized import FACT

if TYPE_CHECKING:
    from orchard.report.run_page import Curve

LOSSES = {
    **SCORE_LOSSES,
    "probabilities": AdversarialLoss(  # leftthomas/SRGAN: of sigmoids, without the logarithm
        lambda real, fake: 1 - real.sigmoid().mean() + fake.sigmoid().mean(), lambda fake: 1 - fake.sigmoid().mean()
    ),
}


class AdversarialSuperResolution(SuperResolution):
    """The losses and the metrics of a pair in training. PSNR falls while it learns texture."""

    selects = False

    def __init__(
        self,
        settings: AdversarialSettings,
        difference: Literal["l1", "mse"],
        perceptual: Callable[[Tensor, Tensor], Tensor] | None,
    ):
        super().__init__(difference)
        self.settings = settings
        self.adversarial = LOSSES[settings.loss]
        self.perceptual = perceptual
        self.phases = (
            Phase("generator", self.generator_loss, ("generator.",)),
            Phase(
                "discriminator", self.discriminator_loss, ("discriminator.",), "discriminator",
                begins=settings.discriminator_start,
            ),
        )  # fmt: skip
        self.logged += ("pixel_loss", "adversarial_loss", "discriminator_loss", "score_real", "score_fake")
        if perceptual is not None:
            self.logged += ("perceptual_loss",)
        elif settings.perceptual_weight:
            self.remarks = ("adversarial.perceptual names no classifier: nothing perceptual is learned",)

    def curves(self) -> tuple[Curve, ...]:
        from orchard.report.run_page import Curve

        curves = (
            Curve("Pixel loss", "pixel_loss", "range 1", falling=True),
            Curve("Adversarial loss", "adversarial_loss", self.settings.loss),
            Curve("Discriminator's loss", "discriminator_loss", self.settings.loss),
            Curve("Score of real images", "score_real", "score"),
            Curve("Score of enlarged images", "score_fake", "score"),
        )
        perceptual = Curve("Perceptual loss", "perceptual_loss", "of feature maps", falling=True)
        return (*curves, perceptual) if self.perceptual else curves

    def terms(self, found: Tensor, truth: Tensor, scores: Tensor | None) -> dict[str, Tensor]:
        """The parts of the generator's loss before their weights, of images (B, 3, H, W) in [0, 1]; `scores` are the
        discriminator's of `found`."""
        terms = {"pixel": self.difference(found, truth)}
        if scores is not None:
            terms["adversarial"] = self.adversarial.generator(scores)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(found, truth)
        if self.settings.total_variation_weight:
            terms["total_variation"] = total_variation(found)
        return terms

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of `terms`."""
        s = self.settings
        weights = {
            "pixel": s.pixel_weight, "adversarial": s.weight, "perceptual": s.perceptual_weight,
            "total_variation": s.total_variation_weight,
        }  # fmt: skip
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    def generator_loss(self, model: Any, batch: PatchBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each part before its weight."""
        found, truth = enlarged(model, batch)
        judged = step >= self.settings.discriminator_start
        low, high = network_of(model).value_range
        unit = high - low
        scores = model.discriminator(found).float() if judged else None
        terms = self.terms((found - low) / unit, (truth - low) / unit, scores)
        return self.total(terms), {f"{name}_loss": term.detach() for name, term in terms.items()}

    def discriminator_loss(self, model: Any, batch: PatchBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversarial loss of real and of enlarged images, apart, as a batch norm would mix them."""
        with torch.no_grad():
            found, truth = enlarged(model, batch)
        real, fake = model.discriminator(truth).float(), model.discriminator(found).float()
        metrics = {"score_real": real.detach().mean(), "score_fake": fake.detach().mean()}
        return self.adversarial.discriminator(real, fake), metrics


def enlarged(model: nn.Module, batch: PatchBatch) -> tuple[Tensor, Tensor]:
    """What the network makes of a batch, and the truth, in its values."""
    scale = batch.high.shape[-1] // batch.low.shape[-1]
    return network_of(model).upscale(to_network(batch.low, model), scale).float(), to_network(batch.high, model)


def total_variation(images: Tensor) -> Tensor:
    """Twice the mean squared differences of neighbours in rows and in columns, added."""
    rows, columns = images.diff(dim=-2).square().mean(), images.diff(dim=-1).square().mean()
    return 2 * (rows + columns)


def is_pair(model: nn.Module) -> bool:
    """Does a discriminator judge what the model enlarges?"""
    return hasattr(model, "discriminator")


def pair_from_generator(model: str, start_from: str, architecture: dict[str, Any]) -> nn.Module | None:
    """A pair whose generator has the weights of a model of its kind, and its sizes, which `architecture` may not
    change; None where variant `model` is no pair or `start_from` is no such model."""
    folder = model_folder(Path(start_from))
    about, state = read_portable(folder)
    if about.model == model or FACT in about.facts:
        return None
    with torch.device("meta"):
        pair, start = create_model(model, **architecture), about.build()
    if not is_pair(pair) or type(pair.generator) is not type(start):
        return None
    fields = {field.name for field in dataclasses.fields(pair.config)}  # type: ignore[arg-type]
    sizes = {key: value for key, value in about.architecture.items() if key in fields}
    for key in sizes.keys() & architecture.keys():
        if architecture[key] != sizes[key]:
            raise UsageError(f"{folder} has {key} {sizes[key]}, not {architecture[key]}; leave it out")
    found: Any = create_model(model, **{**sizes, **architecture})
    load_exactly(found.generator, state, str(folder / WEIGHTS))
    return found  # type: ignore[no-any-return]
