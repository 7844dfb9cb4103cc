"""Learning to fill holes by the differences of pixels and of VGG's features (Liu et al. 2018, arXiv:1804.07723)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.holes import HOLES, cut_hole
from orchard.data.two_sides.contracts import TwoSides
from orchard.data.two_sides.loader import SidesBatch
from orchard.errors import OrchardError
from orchard.models.translation.inpainting import COLOURS, Inpainter
from orchard.nn.pooled_features import PooledFeatures
from orchard.nn.vgg_features import MEAN, STD
from orchard.report.run_page import Curve, Tile
from orchard.tasks.image_to_image.alone import Made, Told
from orchard.tasks.image_to_image.filling import spread
from orchard.tasks.image_to_image.inpainting_losses import feature_losses, pixel_losses
from orchard.tasks.image_to_image.measuring import Looks
from orchard.tasks.image_to_image.settings import HoleSettings, InpaintingSettings, Settings
from orchard.tasks.image_to_image.translating import TOP
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.training.phases import Phase
from orchard.weights.foreign import read_checkpoint

NEEDS = "a way to fill holes"
PAIRED = True
COLOURED = False
METRIC = "l1"
NETWORKS: Mapping[str, str] = {}  # official files are of one network
METRICS = ("l1", "psnr", "spread_l1", "spread_psnr")  # in the hole; the last two of `spread`, which learns nothing


def suits(model: nn.Module) -> bool:
    return hasattr(model, "fill") and not hasattr(model, "discriminator")


def make_given(model: nn.Module, settings: Settings | None) -> Made:
    """Pictures with holes of the model's kind."""
    network = cast(Inpainter, model)
    size, make = network.config.image_size, HOLES[network.holes]
    s = settings.holes if settings else HoleSettings()

    def made(pixels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        share = network.hole_share or s.least + (s.most - s.least) * float(numbers[-1])
        return cut_hole(pixels, make(size, numbers, share))

    return made


def figures(given: Tensor, found: Tensor, truth: Tensor) -> Sequence[float]:
    """`METRICS` of one picture: absolute difference (range 1) and PSNR in dB of the pixels in the hole."""
    hole = given[COLOURS] == 0
    rows = []
    for image in (found, spread(given)):
        difference = (image.float() - truth.float())[:, hole] / TOP
        rows += [float(difference.abs().mean()), float(-10 * difference.double().square().mean().clamp(1e-10).log10())]
    return rows


def summary(rows: Tensor) -> dict[str, float]:
    return dict(zip(METRICS, rows.mean(0).tolist(), strict=True))


def prepare(learner: GenerationLearner, split: TwoSides, looks: Looks) -> None:
    """Nothing is to be known of the pictures before."""


def tell(metrics: Mapping[str, float]) -> Told:
    better = metrics["psnr"] - metrics["spread_psnr"]
    return Told(
        tiles=(
            Tile("PSNR in the holes", f"{metrics['psnr']:.2f} dB", f"{better:+.2f} dB against spreading"),
            Tile("Difference", f"{metrics['l1']:.4f}", "absolute, in the holes, of values from 0 to 1"),
            Tile("Spreading", f"{metrics['spread_psnr']:.2f} dB", "means of what is known around, without learning"),
        ),
        curves=(Curve("PSNR in the holes", "psnr", "dB"), Curve("Difference", "l1", "absolute, range 1", falling=True)),
        figure="The figure is the mean absolute difference in the hole, of values from 0 to 1.",
        lead=f"differs from the truth in the holes by {metrics['l1']:.4f} (spreading: {metrics['spread_l1']:.4f})",
    )  # fmt: skip


class Inpainting:
    """The one phase of a training, of a `GenerationLearner`."""

    def __init__(self, settings: InpaintingSettings):
        self.weights = {
            "hole": settings.hole_weight, "valid": settings.valid_weight, "variation": settings.variation_weight,
            "perceptual": settings.perceptual_weight, "style": settings.style_weight,
        }  # fmt: skip
        self.features = read_vgg(settings.vgg) if settings.vgg else None
        names = list(self.weights) if self.features else list(self.weights)[:3]
        self.curves = (
            Curve("Loss", "loss", "weighted sum", falling=True),
            *(Curve(name.capitalize(), f"{name}_loss", "before its weight", falling=True) for name in names),
        )
        self.phases = (Phase("network", self.loss, ("model.",)),)
        self.logged = (*METRICS, *(curve.column for curve in self.curves[1:]))

    def describe(self) -> str:
        without = "" if self.features else ", without VGG's, as inpainting.vgg names no weights"
        return f"holes to fill by the losses of partial convolutions{without}"

    def loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of images as VGG has them, and each loss before its weight."""
        known = (batch.a[:, COLOURS:] > 0).float()
        mean, std = (batch.b.new_tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
        found = learner.model.fill(batch.a[:, :COLOURS], known).float()
        found, truth = (((images + 1) / 2 - mean) / std for images in (found, batch.b))
        losses = pixel_losses(found, truth, known)
        if self.features is not None:
            losses |= feature_losses(found, truth, known, self.features.to(found.device))
        total = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        return total, {f"{name}_loss": value.detach() for name, value in losses.items()}


class FrozenNorms(GenerationLearner):
    """A network whose encoder's norms stand still (Liu et al. 2018, section 4.2), for which holes change statistics."""

    def train(self, mode: bool = True) -> FrozenNorms:
        super().train(mode)
        for module in cast(Any, self.model).down.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.requires_grad_(False)
        return self


def read_vgg(file: str) -> PooledFeatures:
    """Features with VGG-16's weights, which do not learn. OrchardError where the file is missing or has others."""
    features = PooledFeatures()
    try:
        features.load(read_checkpoint(Path(file)))
    except KeyError as error:
        raise OrchardError(f"{file}: no tensor {error}; expected torchvision's VGG-16") from None
    except RuntimeError as error:
        raise OrchardError(f"{file} is no VGG-16: {str(error).splitlines()[-1].strip()}") from None
    return features.requires_grad_(False)


def make_objective(settings: Settings, model: nn.Module) -> Inpainting:
    return Inpainting(settings.inpainting)


def make_learner(model: Any, settings: Settings) -> GenerationLearner:
    size = model.config.image_size
    kind = FrozenNorms if settings.inpainting.frozen_norms else GenerationLearner
    return kind(cast(nn.Module, model), (COLOURS, size, size))
