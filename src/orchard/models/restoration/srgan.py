"""SRGAN: super-resolution judged by a discriminator (Ledig et al. 2016, arXiv:1609.04802).

The generator is SRResNet. The discriminator is a stack of 3x3 convolutions that halve the image four times while their
width doubles, with batch norm but in the first, then two fully connected layers (figure 4). Legend: B images, h x w
low resolution, H x W high resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.models.restoration.contract import SuperResolver
from orchard.models.restoration.srresnet import SRResNet, SRResNetConfig, example, srgan_names
from orchard.nn.checks import check_images

SLOPE = 0.2  # of the discriminator's leaky ReLU
HALVINGS = 4


@dataclass(frozen=True)
class SRGANConfig:
    scale: int = 4
    blocks: int = 16
    width: int = 64
    output: Literal["linear", "tanh"] = "linear"  # tanh: brought to [0, 1] as (tanh + 1) / 2
    discriminator_widths: tuple[int, ...] = (64, 128, 256, 512)  # at H, H / 2, ...; the last again at H / 16
    discriminator_hidden: int = 1024
    discriminator_cells: int = 6  # a side, to which the last features are averaged: as they are at 96 x 96

    def __post_init__(self) -> None:
        if len(self.discriminator_widths) != HALVINGS:
            raise ValueError(f"discriminator_widths are {self.discriminator_widths}; expected {HALVINGS} of them")

    @property
    def generator(self) -> SRResNetConfig:
        return SRResNetConfig(scale=self.scale, blocks=self.blocks, width=self.width, output=self.output)


class Layer(nn.Module):
    """Convolution, norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), SLOPE)


class Discriminator(nn.Module):
    """RGB (B, 3, H, W) in [0, 1], of any size from 16 pixels on, to scores (B,), unbounded, larger for real."""

    def __init__(self, c: SRGANConfig):
        super().__init__()
        inputs = c.discriminator_widths[0]
        self.head = nn.Conv2d(3, inputs, 3, padding=1)
        strides = [(inputs, 2), *((width, stride) for width in c.discriminator_widths[1:] for stride in (1, 2))]
        self.layers = nn.Sequential()
        for width, stride in strides:
            self.layers.append(Layer(inputs, width, stride))
            inputs = width
        # Convolutions over all cells at once are the fully connected layers.
        self.hidden = nn.Conv2d(inputs, c.discriminator_hidden, c.discriminator_cells)
        self.score = nn.Conv2d(c.discriminator_hidden, 1, 1)
        self.cells = c.discriminator_cells

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, 3, least=2**HALVINGS)
        x = self.layers(F.leaky_relu(self.head(images), SLOPE))
        x = F.leaky_relu(self.hidden(F.adaptive_avg_pool2d(x, self.cells)), SLOPE)
        return self.score(x).flatten()


class SRGAN(SuperResolver):
    """RGB (B, 3, h, w) to (B, 3, scale h, scale w), both in [0, 1]; and a judge of the latter."""

    def __init__(self, config: SRGANConfig):
        super().__init__()
        self.config = config
        self.generator = SRResNet(config.generator)
        self.discriminator = Discriminator(config)

    @property
    def scales(self) -> tuple[int, ...]:
        return self.generator.scales

    @property
    def receptive_radius(self) -> int | None:
        return self.generator.receptive_radius

    def forward(self, images: Tensor) -> Tensor:
        enlarged: Tensor = self.generator(images)
        return enlarged

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters: the generator's from the input to the output, then the discriminator's."""
        groups = self.generator.layer_groups()
        return [*(tuple(f"generator.{prefix}" for prefix in group) for group in groups), ("discriminator.",)]


def port_names(config: Any) -> list[tuple[str, str]]:
    """The names of leftthomas/SRGAN, whose files hold one network each."""
    generator = [(f"generator.{ours}", f"{GENERATOR}{theirs}") for ours, theirs in srgan_names(config.generator)]
    count = 2 * HALVINGS - 1
    layers = [
        (f"discriminator.layers.{n}.{ours}.{{}}", f"{DISCRIMINATOR}net.{2 + 3 * n + place}.{{}}")
        for n in range(count)
        for place, ours in enumerate(("conv", "norm"))
    ]
    behind = 3 * (count + 1)  # two entries of the head, three of each layer, and the pool
    return [
        *generator,
        ("discriminator.head.{}", f"{DISCRIMINATOR}net.0.{{}}"),
        *layers,
        ("discriminator.hidden.{}", f"{DISCRIMINATOR}net.{behind}.{{}}"),
        ("discriminator.score.{}", f"{DISCRIMINATOR}net.{behind + 2}.{{}}"),
    ]


VARIANTS = {
    "srgan_nano": SRGANConfig(
        blocks=4, width=24, discriminator_widths=(16, 32, 48, 64), discriminator_hidden=64, discriminator_cells=3
    ),
    "srgan": SRGANConfig(),
}
LANDMARK = Landmark(model=SRGAN, variants=VARIANTS, names={"leftthomas": port_names}, example=example)
