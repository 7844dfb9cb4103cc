"""Learning colours as classes, of which rare ones weigh more (Zhang et al. 2016, arXiv:1603.08511, section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.two_sides.contracts import TwoSides
from orchard.data.two_sides.loader import SidesBatch
from orchard.nn.colour_bins import class_weights, colour_bins, encode, smoothed
from orchard.nn.lab import rgb_to_lab
from orchard.report.run_page import Curve, Tile
from orchard.tasks.image_to_image.alone import Made, Told
from orchard.tasks.image_to_image.measuring import CHUNK, Looks
from orchard.tasks.image_to_image.painting import to_grey
from orchard.tasks.image_to_image.settings import Settings
from orchard.tasks.image_to_image.translating import TOP
from orchard.tasks.super_resolution.metrics import psnr
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.training.phases import Phase

NEEDS = "classes of colours"
PAIRED = True
COLOURED = True
METRIC = "l1"
NETWORKS: Mapping[str, str] = {}  # official files are of one network
METRICS = ("l1", "psnr", "auc", "grey_l1", "grey_psnr", "grey_auc")  # the last three of the picture without colours
COUNTED = 512  # training pictures in which colours are counted
APART = 4  # pixels between places that are learned, those of the logits
PALE = 5.0  # of both axes; an image that is nowhere more than that teaches nothing
FURTHEST = 150  # of the distances in Lab under which the share of pixels is averaged (section 3.1)


def suits(model: nn.Module) -> bool:
    return hasattr(model, "classes") and hasattr(model, "bins")


def make_given(model: nn.Module, settings: Settings | None) -> Made:
    """Pictures without their colours."""

    def made(pixels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        return to_grey(images).permute(1, 2, 0).numpy()

    return made


def figures(given: Tensor, found: Tensor, truth: Tensor) -> Sequence[float]:
    """`METRICS` of one picture."""
    rows: list[float] = []
    for image in (found, given.expand(3, -1, -1)):
        difference = float((image.float() - truth.float()).abs().mean()) / TOP
        rows += [difference, min(psnr(image, truth), 100.0), auc(image, truth)]
    return rows


def auc(found: Tensor, truth: Tensor) -> float:
    """The share of pixels whose colour is at most so far from the true one in a and b, over distances 0, 1 ... 150."""
    a, b = (rgb_to_lab(image.float() / TOP)[1:] for image in (found, truth))
    distance = torch.linalg.vector_norm(a - b, dim=0).ceil()
    return float(((FURTHEST + 1 - distance).clamp(min=0) / (FURTHEST + 1)).mean())


def summary(rows: Tensor) -> dict[str, float]:
    return dict(zip(METRICS, rows.mean(0).tolist(), strict=True))


def prepare(learner: GenerationLearner, split: TwoSides, looks: Looks) -> None:
    """Count the colours of training pictures, evenly chosen where there are many."""
    counts, bins = torch.zeros(len(colour_bins())), colour_bins()
    chosen = np.unique(np.linspace(0, len(split) - 1, COUNTED).astype(int))
    for start in range(0, len(chosen), CHUNK):
        lab = rgb_to_lab(looks.pictures(split, "B", chosen[start : start + CHUNK]).float() / TOP)
        nearest = torch.cdist(places(lab), bins).argmin(1)
        counts += torch.bincount(nearest, minlength=len(bins))
    learner.get_buffer("prior").copy_(smoothed(counts / counts.sum(), bins))


def places(lab: Tensor) -> Tensor:
    """Of images (B, 3, H, W) the colours (N, 2) of the places that are learned."""
    return lab[:, 1:, ::APART, ::APART].permute(0, 2, 3, 1).reshape(-1, 2)


def tell(metrics: Mapping[str, float]) -> Told:
    grey = metrics["grey_auc"]
    return Told(
        tiles=(
            Tile("Colours", f"{metrics['auc']:.4f}", f"area under the curve of distances; grey {grey:.4f}"),
            Tile("PSNR", f"{metrics['psnr']:.2f} dB", f"grey {metrics['grey_psnr']:.2f} dB"),
            Tile("Difference", f"{metrics['l1']:.4f}", "absolute, of values from 0 to 1"),
        ),
        curves=(Curve("Colours", "auc", "area under the curve of distances"), Curve("PSNR", "psnr", "dB")),
        figure="The figure is the mean absolute difference of the two, of values from 0 to 1.",
        lead=f"has an area of {metrics['auc']:.4f} under the curve of distances in colour (grey: {grey:.4f})",
    )  # fmt: skip


def colour_loss(logits: Tensor, lab: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted cross-entropy of soft classes (equation 2), and the plain one; means over places.

    Args:
        logits: (B, Q, h, w).
        lab: the images, (B, 3, H, W), 4 h x 4 w pixels.
        weights: of every class, (Q,).
    """
    with torch.no_grad():
        wanted = encode(places(lab), colour_bins().to(lab.device))
        vivid = (lab[:, 1:].abs() > PALE).flatten(1).any(1).float()
        each = vivid.repeat_interleave(logits.shape[2] * logits.shape[3]) * weights[wanted.argmax(1)]
    shares = logits.float().permute(0, 2, 3, 1).flatten(0, 2).log_softmax(1)
    entropy = -(wanted * shares).sum(1)
    return (entropy * each).mean(), entropy.mean().detach()


class Colouring:
    """The one phase of a training, of a `GenerationLearner` with `prior` (Q,), the shares of colours."""

    curves = (
        Curve("Loss", "loss", "weighted cross-entropy", falling=True),
        Curve("Cross-entropy", "entropy", "nats", falling=True),
    )

    def __init__(self, mix: float):
        self.mix = mix
        self.phases = (Phase("network", self.loss, ("model.",)),)
        self.logged = (*METRICS, "entropy")

    def describe(self) -> str:
        return f"{len(colour_bins())} classes of colour, weighed by how rare they are with a share of {self.mix:g}"

    def loss(self, learner: Any, batch: SidesBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        lab = rgb_to_lab((batch.b + 1) / 2)
        loss, entropy = colour_loss(learner.model.classes(lab[:, :1]), lab, class_weights(learner.prior, self.mix))
        return loss, {"entropy": entropy}


def make_objective(settings: Settings, model: nn.Module) -> Colouring:
    return Colouring(settings.colouring.mix)


def make_learner(model: Any, settings: Settings) -> GenerationLearner:
    size = model.config.image_size
    prior = {"prior": torch.zeros(len(colour_bins()))}
    return GenerationLearner(cast(nn.Module, model), (3, size, size), prior)
