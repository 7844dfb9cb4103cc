"""DCGAN: adversarial pairs made of convolutions alone (Radford, Metz, Chintala 2015, arXiv:1511.06434).

The guidelines of section 3: strides in place of pooling, batch norm everywhere but at the generator's output and the
discriminator's input, no fully connected hidden layers, ReLU and tanh in the generator, leaky ReLU in the
discriminator. Legend: B images, C channels, S pixels a side, s the side of the smallest map, W channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR, AdversarialPair, draw, example_noise
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_normal
from orchard.nn.virtual_batch_norm import VirtualBatchNorm2d

SLOPE = 0.2  # of the leaky ReLU
STD = 0.02  # of all weights at the start (section 4)


@dataclass(frozen=True)
class DCGANConfig:
    image_size: int = 64
    in_channels: int = 3
    noise: int = 100  # numbers that an image is made of
    prior: Literal["normal", "uniform"] = "normal"  # what they are drawn from
    levels: int = 4  # times that the generator doubles the side, and the discriminator halves it
    generator_width: int = 64  # channels at half the image's side; twice as many at each smaller side
    discriminator_width: int = 64
    kernel: int = 4  # of the convolutions of stride 2
    reference: int = (
        0  # samples that virtual batch norms of the generator refer to (Salimans et al. 2016); 0: batch norm
    )

    def __post_init__(self) -> None:
        if self.image_size % 2**self.levels:
            raise ValueError(f"an image of {self.image_size} pixels is not halved evenly {self.levels} times")
        if self.levels < 1:
            raise ValueError(f"levels is 1 or more, got {self.levels}")
        if self.reference < 0:
            raise ValueError(f"reference is 0 or more, got {self.reference}")

    @property
    def side(self) -> int:
        """Pixels a side of the smallest map."""
        return self.image_size // 2**self.levels


class Generator(nn.Module):
    """Noise (B, noise) → images (B, C, S, S) in [-1, 1] (figure 1)."""

    def __init__(self, c: DCGANConfig):
        super().__init__()
        self.config = c
        widths = [c.generator_width * 2**n for n in reversed(range(c.levels))]
        # The first layer sees one pixel of `noise` channels: a matrix product, reshaped to (W, s, s).
        layers: list[nn.Module] = [nn.ConvTranspose2d(c.noise, widths[0], c.side, bias=False)]
        for inputs, outputs in pairwise([*widths, c.in_channels]):
            norm = VirtualBatchNorm2d(inputs, c.reference) if c.reference else nn.BatchNorm2d(inputs)
            layers += [norm, nn.ReLU(inplace=True), upsampling(inputs, outputs, c.kernel)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.reference: Tensor | None
        self.register_buffer("reference", draw(c, c.reference, None, None) if c.reference else None)

    def forward(self, noise: Tensor) -> Tensor:
        if self.reference is not None:  # goes before the others through all layers
            noise = torch.cat([self.reference.to(noise.dtype), noise])
        images: Tensor = self.layers(noise[:, :, None, None])
        return images if self.reference is None else images[self.config.reference :]


class Discriminator(nn.Module):
    """Images (B, C, S, S) → scores (B,); the sigmoid of a score is the probability that the image is real."""

    def __init__(self, c: DCGANConfig):
        super().__init__()
        self.config = c
        widths = [c.discriminator_width * 2**n for n in range(c.levels)]
        layers: list[nn.Module] = [downsampling(c.in_channels, widths[0], c.kernel), nn.LeakyReLU(SLOPE, inplace=True)]
        for inputs, outputs in pairwise(widths):
            layers += [
                downsampling(inputs, outputs, c.kernel),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, c.side, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        scores: Tensor = self.layers(images)
        return scores.flatten()


def upsampling(inputs: int, outputs: int, kernel: int) -> nn.ConvTranspose2d:
    """The fractionally strided convolution that doubles a side."""
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=2, padding=(kernel - 1) // 2, output_padding=kernel % 2, bias=False
    )


def downsampling(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """The strided convolution that halves a side."""
    return nn.Conv2d(inputs, outputs, kernel, stride=2, padding=(kernel - 1) // 2, bias=False)


class DCGAN(AdversarialPair):
    """Noise (B, noise) to images (B, C, S, S) in [-1, 1], and images to scores (B,)."""

    def __init__(self, config: DCGANConfig):
        super().__init__(config, Generator(config), Discriminator(config))
        initialise_normal(self, STD)


VARIANTS = {
    "dcgan": DCGANConfig(),
    "dcgan_paper": DCGANConfig(prior="uniform", generator_width=128, discriminator_width=128, kernel=5),
    "dcgan_nano": DCGANConfig(
        image_size=28, in_channels=1, noise=64, levels=2, generator_width=32, discriminator_width=32
    ),
}


def examples_names(config: DCGANConfig) -> list[tuple[str, str]]:
    """The names of pytorch/examples, whose files netG_epoch_N.pth and netD_epoch_N.pth hold one network each."""
    return [("generator.layers.{}", f"{GENERATOR}main.{{}}"), ("discriminator.layers.{}", f"{DISCRIMINATOR}main.{{}}")]


LANDMARK = Landmark(
    model=DCGAN,
    variants=VARIANTS,
    names={"examples": examples_names},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise,
)
