"""GAN: the first adversarial pair, of fully connected layers (Goodfellow et al. 2014, arXiv:1406.2661).

The shapes are those of the authors' code for MNIST: rectified units and a sigmoid in the generator, maxout units with
dropout in the discriminator. Legend: B images, C channels, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.pair import AdversarialPair, example_noise
from orchard.nn.checks import check_images
from orchard.nn.maxout import Maxout
from orchard.nn.minibatch_discrimination import MinibatchDiscrimination

DROPPED_PIXELS, DROPPED_UNITS = 0.2, 0.5  # shares that dropout leaves out in the discriminator
GENERATOR_BOUND, DISCRIMINATOR_BOUND = 0.05, 0.005  # of the uniform weights at the start
KERNEL_DIMS = 5  # projections for each kernel of minibatch discrimination


@dataclass(frozen=True)
class FlatImages:
    """Images that fully connected layers see as rows of numbers."""

    image_size: int = 28
    in_channels: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of one image."""
        return (self.in_channels, self.image_size, self.image_size)

    @property
    def pixels(self) -> int:
        return self.in_channels * self.image_size**2


@dataclass(frozen=True)
class GANConfig(FlatImages):
    noise: int = 100  # numbers that an image is made of
    prior: Literal["normal", "uniform"] = "normal"  # what they are drawn from
    width: int = 1200  # units of the generator's two hidden layers
    units: int = 240  # of the discriminator's two hidden layers
    pieces: int = 5  # linear functions that a maxout unit is the largest of
    minibatch_kernels: int = 0  # of minibatch discrimination before the score (Salimans et al. 2016); 0: none

    def __post_init__(self) -> None:
        if self.pieces < 2:
            raise ValueError(f"a maxout unit has 2 pieces or more, got {self.pieces}")
        if self.minibatch_kernels < 0:
            raise ValueError(f"minibatch_kernels is 0 or more, got {self.minibatch_kernels}")


class Generator(nn.Module):
    """Noise (B, noise) → images (B, C, S, S) in [0, 1]."""

    def __init__(self, c: GANConfig):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(c.noise, c.width),
            nn.ReLU(inplace=True),
            nn.Linear(c.width, c.width),
            nn.ReLU(inplace=True),
            nn.Linear(c.width, c.pixels),
            nn.Sigmoid(),
            nn.Unflatten(1, c.shape),
        )
        uniform(self, GENERATOR_BOUND)

    def forward(self, noise: Tensor) -> Tensor:
        images: Tensor = self.layers(noise)
        return images


class Discriminator(nn.Module):
    """Images (B, C, S, S) → scores (B,); the sigmoid of a score is the probability that the image is real."""

    def __init__(self, c: GANConfig):
        super().__init__()
        self.config = c
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(DROPPED_PIXELS),
            Maxout(c.pixels, c.units, c.pieces),
            nn.Dropout(DROPPED_UNITS),
            Maxout(c.units, c.units, c.pieces),
            nn.Dropout(DROPPED_UNITS),
        )
        features = c.units
        if c.minibatch_kernels:
            self.hidden.append(MinibatchDiscrimination(features, c.minibatch_kernels, KERNEL_DIMS, std=0.05))
            features += c.minibatch_kernels
        self.score = nn.Linear(features, 1)
        uniform(self, DISCRIMINATOR_BOUND)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        scores: Tensor = self.score(self.hidden(images))
        return scores.flatten()


def uniform(network: nn.Module, bound: float) -> None:
    """Weights of linear layers uniform up to a bound, and no bias."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)


class GAN(AdversarialPair):
    """Noise (B, noise) to images (B, C, S, S) in [0, 1], and images to scores (B,)."""

    value_range = (0.0, 1.0)
    objective = "dcgan"  # the non-saturating loss, as in the authors' code; "gan" is the loss of equation 1

    def __init__(self, config: GANConfig):
        super().__init__(config, Generator(config), Discriminator(config))


VARIANTS = {"gan": GANConfig(), "gan_nano": GANConfig(noise=32, width=128, units=48, pieces=3)}

LANDMARK = Landmark(
    model=GAN,
    variants=VARIANTS,
    preprocess={"": {"mean": (0.0,), "std": (1.0,), "crop": 1.0}},
    example=example_noise,
)
