"""StyleGAN: images of styles.

Karras et al. 2018 (arXiv:1812.04948). A mapping network makes noise z into a style w; a synthesis network begins with a
learned constant, and after every convolution adds noise and gives its maps the mean and the spread that w says (AdaIN).
It grows as ProGAN does, whose discriminator it has. Legend: B images, C channels of an image and W of a map, s pixels a
side at a level, D numbers of z and of w, L styles that an image takes, two for each level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.growing_names import BLUR, FUSED_FROM, stylegan_names
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
from orchard.models.generation.styled import Styled
from orchard.nn.equalised import EqualisedConv2d, EqualisedLinear
from orchard.nn.filtered_resampling import LowPass
from orchard.nn.growth import Growth
from orchard.nn.minibatch_stddev import MinibatchStddev
from orchard.nn.noise_injection import NoiseInjection
from orchard.nn.pixel_norm import pixel_norm

MAPPING_SPEED = 0.01  # learning rate of the mapping network beside that of the rest
WHOLE_BATCH = 2**31  # a group that no batch is larger than


@dataclass(frozen=True)
class StyleGANConfig:
    image_size: int
    widths: tuple[int, ...]  # channels of the smallest map, and after each doubling of its side
    in_channels: int = 3
    noise: int = 512  # D
    mapping_layers: int = 8
    form: Literal["paper", "rosinality"] = "paper"  # the port differs from the paper in what the card says
    prior: Literal["normal"] = "normal"

    def __post_init__(self) -> None:
        check_widths(self.image_size, self.widths)

    @property
    def paper(self) -> bool:
        return self.form == "paper"

    @property
    def plain_gain(self) -> float:
        """Of the weights of layers that no rectifier follows: the port makes up for one there too."""
        return 1.0 if self.paper else RECTIFIER_GAIN


class Mapping(nn.Module):
    """z (B, D) → w (B, D): brought to unit mean square, then linear layers."""

    def __init__(self, c: StyleGANConfig):
        super().__init__()
        speed = MAPPING_SPEED if c.paper else 1.0
        self.layers = nn.ModuleList(
            EqualisedLinear(c.noise, c.noise, lr_multiplier=speed, gain=RECTIFIER_GAIN) for _ in range(c.mapping_layers)
        )

    def forward(self, z: Tensor) -> Tensor:
        x = pixel_norm(z)
        for layer in self.layers:
            x = rectify(layer(x))
        return x


class AdaIN(nn.Module):
    """Maps (B, W, s, s) of zero mean and unit variance each, then scaled and moved by a style (B, D) (equation 1)."""

    def __init__(self, c: StyleGANConfig, width: int):
        super().__init__()
        self.style = EqualisedLinear(c.noise, 2 * width, gain=c.plain_gain)
        with torch.no_grad():
            self.style.bias[:width] = 1
        self.epsilon = 1e-8 if c.paper else 1e-5

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style)[:, :, None, None].chunk(2, 1)
        return scale * F.instance_norm(x, eps=self.epsilon) + shift


class Epilogue(nn.Module):
    """What follows a convolution: noise, the rectifier, the style (figure 1b). The bias is the convolution's."""

    def __init__(self, c: StyleGANConfig, width: int, side: int, number: int):
        super().__init__()
        self.noise = NoiseInjection(side, (width, 1, 1), 1.0 if c.paper else (2 / width) ** 0.5, seed=number)
        self.norm = AdaIN(c, width)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        return self.norm(rectify(self.noise(x, noise)), style)


class Upsampling(nn.Module):
    """Twice the side: enlarged, convolved, filtered. The port adds the bias before the filter."""

    def __init__(self, c: StyleGANConfig, inputs: int, outputs: int, level: int):
        super().__init__()
        # Where the port does both at once it takes the mean of four weights for their sum.
        gain = RECTIFIER_GAIN / 4 if level >= FUSED_FROM and not c.paper else RECTIFIER_GAIN
        self.conv = EqualisedConv2d(inputs, outputs, 3, padding=1, bias=False, gain=gain)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.blur = LowPass(1, 1, taps=BLUR)
        self.bias_first = not c.paper

    def forward(self, x: Tensor) -> Tensor:
        x, bias = self.conv(enlarged(x)), self.bias[:, None, None]
        return self.blur(x + bias) if self.bias_first else self.blur(x) + bias


class Generator(nn.Module):
    """Noise (B, D) → images (B, C, s, s), not bounded, about in [-1, 1]."""

    def __init__(self, c: StyleGANConfig):
        super().__init__()
        widths, sides = c.widths, sides_of(c)
        self.growth = Growth(len(widths))
        self.mapping = Mapping(c)
        self.constant = nn.Parameter(torch.ones(1, widths[0], sides[0], sides[0]))
        self.upsamplings = nn.ModuleList(Upsampling(c, widths[n - 1], widths[n], n) for n in range(1, len(widths)))
        self.convs = nn.ModuleList(conv(width, width, 3, padding=1) for width in widths)
        self.epilogues = nn.ModuleList(Epilogue(c, widths[n // 2], sides[n // 2], n) for n in range(2 * len(widths)))
        self.to_image = nn.ModuleList(EqualisedConv2d(width, c.in_channels, 1, gain=c.plain_gain) for width in widths)

    def latents(self, noise: Tensor) -> Tensor:
        """The style of every layer up to the level, (B, L, D); all are the same."""
        w: Tensor = self.mapping(noise)
        return w[:, None].expand(-1, 2 * (self.growth.level + 1), -1)

    def synthesise(self, latents: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor:
        """Images (B, C, s, s) of styles (B, L, D), and of the noise of every convolution where it is given."""
        level = self.growth.level
        x = before = self.constant.repeat(latents.shape[0], 1, 1, 1)  # len() would fix it in an export
        for n in range(2 * (level + 1)):
            if n % 2:
                x = self.convs[n // 2](x)
            elif n:
                before, x = x, self.upsamplings[n // 2 - 1](x)
            x = self.epilogues[n](x, latents[:, n], None if maps is None else maps[n])
        image: Tensor = self.to_image[level](x)
        return mixed(image, self.to_image[level - 1](before), self.growth) if self.growth.fading else image

    def forward(self, noise: Tensor) -> Tensor:
        return self.synthesise(self.latents(noise))


def discriminator(c: StyleGANConfig) -> GrowingDiscriminator:
    """ProGAN's, with a filter before each halving."""

    def halving(inputs: int, outputs: int) -> nn.Module:
        layers = conv(inputs, outputs, 3, padding=1), nn.AvgPool2d(2), nn.LeakyReLU(SLOPE)
        return nn.Sequential(LowPass(1, 1, taps=BLUR), *layers)

    return GrowingDiscriminator(
        c,
        from_image=lambda width: nn.Sequential(conv(c.in_channels, width, 1), nn.LeakyReLU(SLOPE)),
        halving=halving,
        differences=MinibatchStddev() if c.paper else MinibatchStddev(WHOLE_BATCH),
        score=EqualisedLinear(c.widths[0], 1, gain=c.plain_gain),
        widen_first=not c.paper,
    )


class StyleGAN(Styled, GrowingPair):
    """Noise (B, D) to images (B, C, s, s), and those to scores (B,); between noise and image, styles (B, L, D)."""

    objective = "stylegan"
    generator: Generator

    def __init__(self, config: StyleGANConfig):
        super().__init__(config, Generator(config), discriminator(config))

    def noise_maps(self, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """The noise (count, 1, s, s) of every convolution, of all levels."""
        sides = [side for side in self.sides for _ in range(2)]
        return [torch.randn(count, 1, side, side, generator=generator) for side in sides]


VARIANTS = {
    "stylegan_1024": StyleGANConfig(1024, (512, 512, 512, 512, 256, 128, 64, 32, 16)),
    "stylegan_nano": StyleGANConfig(28, (64, 48, 32), in_channels=1, noise=64, mapping_layers=4),
}


def infer_config(config: StyleGANConfig, source: str, lookup: Any) -> dict[str, Any]:
    """The port's form, and how wide its maps are."""
    found: dict[str, Any] = {"form": "rosinality"}
    widths = [lookup(f"generator.to_image.{n}.weight") for n in range(len(config.widths))]
    if all(weight is not None for weight in widths):
        found["widths"] = tuple(weight.shape[1] for weight in widths)
    return found


LANDMARK = Landmark(
    model=StyleGAN,
    variants=VARIANTS,
    names={"rosinality": stylegan_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise,
)
