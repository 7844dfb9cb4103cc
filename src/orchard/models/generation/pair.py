"""What every adversarial pair offers: a generator, a discriminator, and the noise between them.

Goodfellow et al. 2014 (arXiv:1406.2661): the generator maps noise to images, the discriminator scores images, larger
for real. How they learn from each other is an objective of the task "unconditional-image-generation".
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from orchard.nn.checks import check_labels

# Official code keeps each network in a file of its own. Put together, their names have these before them.
GENERATOR, DISCRIMINATOR = "generator.", "discriminator."


class PairConfig(Protocol):
    """What a pair's configuration has, beside what its networks need."""

    @property
    def image_size(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def noise(self) -> int: ...
    @property
    def prior(self) -> Literal["normal", "uniform"]: ...


def draw(
    config: PairConfig, count: int, generator: torch.Generator | None, device: torch.device | str | None
) -> Tensor:
    """Noise (count, noise) from a configuration's prior."""
    shape = (count, config.noise)
    if config.prior == "uniform":
        return 2 * torch.rand(shape, generator=generator, device=device) - 1
    return torch.randn(shape, generator=generator, device=device)


class AdversarialPair(nn.Module):
    """Noise (B, noise) to images (B, C, S, S) in [-1, 1], and images to scores (B,), unbounded, larger for real."""

    value_range = (-1.0, 1.0)  # of the images that it takes and gives
    objective = "dcgan"  # what it learns from unless a training says otherwise: that of its paper

    def __init__(self, config: Any, generator: nn.Module, discriminator: nn.Module):
        super().__init__()
        self.config: PairConfig = config
        self.generator = generator
        self.discriminator = discriminator

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The shape of one sample's noise."""
        return (self.config.noise,)

    def sample_noise(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Noise of `count` samples, (count, noise), from the prior: standard normal, or uniform in [-1, 1]."""
        return draw(self.config, count, generator, device)

    def forward(self, noise: Tensor) -> Tensor:
        """Images (B, C, S, S) from noise (B, noise); ValueError for noise of another shape or type."""
        self.check_noise(noise)
        images: Tensor = self.generator(noise)
        return images

    def check_noise(self, noise: Tensor) -> None:
        """Raise ValueError unless `noise` is a float (B, noise)."""
        if noise.ndim != 2 or noise.shape[1] != self.config.noise:
            raise ValueError(f"expected noise of shape (B, {self.config.noise}), got {tuple(noise.shape)}")
        if not noise.is_floating_point():
            raise ValueError(f"expected noise as float, got {noise.dtype}")

    @torch.no_grad()
    def generate(self, noise: Tensor) -> Tensor:
        """`forward` without a gradient: what a finished model is used for."""
        images: Tensor = self(noise)
        return images

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters: the generator's, then the discriminator's."""
        return [("generator.",), ("discriminator.",)]


class ConditionalPairConfig(PairConfig, Protocol):
    """What the configuration of a pair with classes has."""

    @property
    def num_classes(self) -> int: ...


class ConditionalPair(AdversarialPair):
    """A pair with classes: noise (B, noise) and labels (B,) to images, and images with their labels to scores (B,)."""

    config: ConditionalPairConfig

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, S, S) of the classes asked for; ValueError for inputs of another shape, type or range."""
        self.check_noise(noise)
        check_labels(labels, noise.shape[0], self.config.num_classes)
        images: Tensor = self.generator(noise, labels)
        return images

    @torch.no_grad()
    def generate(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """`forward` without a gradient: what a finished model is used for."""
        images: Tensor = self(noise, labels)
        return images

    def truncate(self, noise: Tensor, threshold: float) -> Tensor:
        """Standard normal noise as normal noise between -threshold and threshold (Brock et al. 2018, section 3.1).

        Of the same distribution as noise whose larger numbers are drawn again, but by quantiles: every number keeps its
        rank, so that images change smoothly with the threshold. Less of it gives typical images, and less variety.
        """
        if self.config.prior != "normal":
            raise ValueError(f"expected normal noise to truncate, got a prior that is {self.config.prior}")
        share = torch.special.erf(torch.tensor(threshold / 2**0.5, dtype=torch.float64))
        quantiles = torch.special.ndtr(noise.double())
        return torch.special.ndtri(0.5 + share.to(noise.device) * (quantiles - 0.5)).to(noise.dtype)


def example_noise(config: PairConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Arguments of a pair's `forward`."""
    return {"noise": torch.randn(count, config.noise, generator=generator)}


def example_noise_and_labels(
    config: ConditionalPairConfig, count: int, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Arguments of the `forward` of a pair with classes."""
    labels = torch.randint(config.num_classes, (count,), generator=generator)
    return {**example_noise(config, count, generator), "labels": labels}
