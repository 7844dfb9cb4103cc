"""Distributional robustness: a classifier learns from the worst images near those of its data.

Sinha, Namkoong and Duchi 2017 (arXiv:1710.10571). Near is in the sense of Wasserstein: an image may move as far as it
pays, at a price of gamma for its squared distance. The loss of an image z is φ(z) = max over x of ℓ(x) - γ ‖x - z‖²
(equation 2b), and for every ρ the mean of φ plus γ ρ bounds the mean loss of all distributions within ρ of the data
(proposition 1). Legend: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.errors import UsageError
from orchard.tasks.image_classification.settings import RobustSettings

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs (B, K) and labels → their mean loss, a scalar
DISTANCE, SURROGATE = "worst_distance", "surrogate_loss"
COLUMNS = (DISTANCE, SURROGATE)


@dataclass(frozen=True)
class Worst:
    """Images that were moved to where the loss pays for it, and what that cost.

    `images` (B, C, H, W) as the model takes them, without a graph; `distances` (B,) squared, in values of [0, 1].
    """

    images: Tensor
    distances: Tensor


class WorstCase:
    """Moves images by gradient ascent, as the authors' code does.

    The first step goes along the gradient; then step t, from 0, goes 1 / √(t + 2) of the way that ℓ / 2γ and half the
    squared distance ask for. The model is in evaluation mode meanwhile, so that its norms' statistics count each image
    once and dropout does not hide the slope.
    """

    def __init__(self, gamma: float, steps: int, preprocess: Preprocess):
        self.gamma, self.steps = gamma, steps
        self.std = preprocess.std  # of a model's values in those of [0, 1]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> Worst:
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        moved = torch.zeros_like(images, dtype=torch.float32)  # in values of [0, 1]
        with evaluating(model), torch.enable_grad():
            for step in range(-1, self.steps):
                here = moved.requires_grad_()
                mean = loss(model(images + (here / std).to(images.dtype)), labels)
                (slope,) = torch.autograd.grad(len(images) * mean, here)  # each image's own
                rate = 1.0 if step < 0 else (step + 2) ** -0.5
                moved = (here + rate * (slope / (2 * self.gamma) - here)).detach()
        return Worst(images + (moved / std).to(images.dtype), moved.square().flatten(1).sum(1))

    def metrics(self, loss: Tensor, worst: Worst) -> dict[str, Tensor]:
        """Of a batch: the mean squared distance, and the mean of φ, given the mean loss of the worst images."""
        distance = worst.distances.mean()
        return {DISTANCE: distance, SURROGATE: loss.detach() - self.gamma * distance}


def worst_case(settings: RobustSettings, preprocess: Preprocess, model: nn.Module) -> WorstCase | None:
    """That of a training, where images are moved; UsageError for a model of pixels, which has no slope by them."""
    if settings.gamma is None:
        return None
    if hasattr(model, "forward_with_generation"):
        raise UsageError(
            "setting 'robust.gamma': a model of pixels sees colours of a palette, which do not move; leave it out"
        )
    return WorstCase(settings.gamma, settings.steps, preprocess)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, each part of which is then again as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
