"""ProGAN: images that grow in training, from 4 x 4 pixels to 1024 x 1024.

Karras et al. 2017 (arXiv:1710.10196). Both networks are given layers for twice the side when those before have settled;
new layers are faded in. Equalised learning rates, pixel norm in the generator and the batch's standard deviation in the
discriminator keep the two in balance. Legend: B images, C channels, s pixels a side at a level, W channels of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.growing_names import progan_names
from orchard.models.generation.growing_pair import (
    RECTIFIER_GAIN,
    SLOPE,
    GrowingDiscriminator,
    GrowingPair,
    check_widths,
    conv,
    enlarged,
    mixed,
    rectify,
    sides_of,
)
from orchard.models.generation.pair import example_noise
from orchard.nn.equalised import EqualisedConv2d, EqualisedLinear
from orchard.nn.growth import Growth
from orchard.nn.minibatch_stddev import MinibatchStddev
from orchard.nn.pixel_norm import pixel_norm


@dataclass(frozen=True)
class ProGANConfig:
    image_size: int
    widths: tuple[int, ...]  # channels of the smallest map, and after each doubling of its side
    in_channels: int = 3
    noise: int = 512  # numbers that an image is made of, with the classes' among them
    classes: int = 0  # of the port's files: the last numbers of the noise are 1 for an image's class, and else 0
    form: Literal["paper", "rosinality"] = "paper"  # the port differs from the paper in what the card says
    prior: Literal["normal"] = "normal"

    def __post_init__(self) -> None:
        check_widths(self.image_size, self.widths)
        if not 0 <= self.classes < self.noise:
            raise ValueError(f"classes is 0 or more and less than noise ({self.noise}), got {self.classes}")


class Generator(nn.Module):
    """Noise (B, noise) → images (B, C, s, s), not bounded, about in [-1, 1]."""

    def __init__(self, c: ProGANConfig):
        super().__init__()
        side = sides_of(c)[0]
        self.form, self.classes = c.form, c.classes
        self.growth = Growth(len(c.widths))
        self.class_table = nn.Parameter(torch.randn(c.classes, c.classes)) if c.classes else None
        # A linear layer as a convolution over one padded pixel.
        convs = [conv(c.noise, c.widths[0], side, padding=side - 1), conv(c.widths[0], c.widths[0], 3, padding=1)]
        for inputs, outputs in pairwise(c.widths):
            convs += [conv(inputs, outputs, 3, padding=1), conv(outputs, outputs, 3, padding=1)]
        self.convs = nn.ModuleList(convs)
        self.to_image = nn.ModuleList(rgb_layer(c, width, c.in_channels) for width in c.widths)

    def code(self, noise: Tensor) -> Tensor:
        """(B, noise) of unit mean square; of a pair with classes, with a vector of each image's class."""
        if self.class_table is None:
            return pixel_norm(noise)
        plain, classes = noise[:, : -self.classes], noise[:, -self.classes :]
        return torch.cat([pixel_norm(plain), classes @ self.class_table], 1)

    def activate(self, x: Tensor) -> Tensor:
        """Rectified, then normalised; the port has it the other way."""
        return pixel_norm(rectify(x)) if self.form == "paper" else rectify(pixel_norm(x))

    def forward(self, noise: Tensor) -> Tensor:
        level = self.growth.level
        x = before = self.code(noise)[:, :, None, None]
        for n in range(level + 1):
            if n:
                before, x = x, enlarged(x)
            x = self.activate(self.convs[2 * n](x))
            x = self.activate(self.convs[2 * n + 1](x))
        image: Tensor = self.to_image[level](x)
        return mixed(image, self.to_image[level - 1](before), self.growth) if self.growth.fading else image


class Discriminator(GrowingDiscriminator):
    """Images (B, C, s, s) → scores (B,)."""

    def __init__(self, c: ProGANConfig):
        paper, outputs = c.form == "paper", 1 + c.classes
        first = c.widths[0]

        def from_image(width: int) -> nn.Module:
            layer = rgb_layer(c, c.in_channels, width, gain=RECTIFIER_GAIN)
            return nn.Sequential(layer, nn.LeakyReLU(SLOPE)) if paper else nn.Sequential(layer)

        super().__init__(
            c,
            from_image=from_image,
            halving=halving,
            differences=MinibatchStddev() if paper else nn.Identity(),
            score=EqualisedLinear(first, outputs) if paper else nn.Linear(first, outputs),
            widen_first=not paper,
        )
        self.form = c.form

    def compare(self, x: Tensor, images: Tensor) -> Tensor:
        if self.form == "paper":
            return super().compare(x, images)
        spread = images.std(0, correction=min(1, len(images) - 1)).mean()  # the port looks at the images themselves
        return torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], 1)


def halving(inputs: int, outputs: int) -> nn.Module:
    """Maps of half the side."""
    return nn.Sequential(conv(inputs, outputs, 3, padding=1), nn.LeakyReLU(SLOPE), nn.AvgPool2d(2))


def rgb_layer(c: ProGANConfig, inputs: int, outputs: int, gain: float = 1.0) -> nn.Module:
    """A 1x1 convolution between maps and images; the port's have no equalised learning rate."""
    if c.form == "paper":
        return EqualisedConv2d(inputs, outputs, 1, gain=gain)
    return nn.Conv2d(inputs, outputs, 1)


class ProGAN(GrowingPair):
    """Noise (B, noise) to images (B, C, s, s), and those to scores (B,)."""

    objective = "progan"
    config: ProGANConfig
    generator: Generator

    def __init__(self, config: ProGANConfig):
        super().__init__(config, Generator(config), Discriminator(config))

    def sample_noise(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Standard normal noise (count, noise); of a pair with classes, with a class drawn for each image."""
        noise, classes = super().sample_noise(count, generator, device), self.config.classes
        if classes:
            drawn = torch.randint(classes, (count,), generator=generator, device=device)
            noise[:, -classes:] = F.one_hot(drawn, classes).to(noise.dtype)
        return noise


WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)  # of 4 to 1024 pixels (table 2)

VARIANTS = {
    "progan_128": ProGANConfig(128, WIDTHS[:6]),
    "progan_256": ProGANConfig(256, WIDTHS[:7]),
    "progan_1024": ProGANConfig(1024, WIDTHS),
    "progan_nano": ProGANConfig(28, (64, 48, 32), in_channels=1, noise=64),
}


def infer_config(config: ProGANConfig, source: str, lookup: Any) -> dict[str, Any]:
    """The port's form, and what its shapes say of widths and classes."""
    found: dict[str, Any] = {"form": "rosinality"}
    widths = [lookup(f"generator.to_image.{n}.weight") for n in range(len(config.widths))]
    if all(weight is not None for weight in widths):
        found["widths"] = tuple(weight.shape[1] for weight in widths)
    score = lookup("discriminator.score.weight")
    if score is not None:
        found["classes"] = len(score) - 1
    return found


LANDMARK = Landmark(
    model=ProGAN,
    variants=VARIANTS,
    names={"rosinality": progan_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise,
)
