"""StyleGAN2: images of styles, without the traces that style normalisation leaves.

Karras et al. 2019 (arXiv:1912.04958). A mapping network makes noise z into a style w; a synthesis network begins with a
learned constant, and every convolution scales its input maps by w. Configuration F: weight demodulation, a generator
with output skips, a residual discriminator, large networks. Legend: B images, C channels, S pixels a side, s those of a
map, W channels, D numbers of z and of w, L styles that an image takes, one for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.pair import AdversarialPair, example_noise
from orchard.models.generation.quantized_blocks import QuantizationConfig, Quantizers, check_quantization
from orchard.models.generation.styled import Styled
from orchard.models.generation.stylegan2_names import NOT_WEIGHTS, rosinality_names
from orchard.nn.checks import check_images
from orchard.nn.equalised import EqualisedConv2d, EqualisedLinear
from orchard.nn.feature_quantizer import QuantizedFeatures
from orchard.nn.filtered_resampling import Doubling, LowPass, halving
from orchard.nn.minibatch_stddev import MinibatchStddev
from orchard.nn.modulated_conv import ModulatedConv2d
from orchard.nn.noise_injection import NoiseInjection

EPSILON = 1e-8  # of the norm of z
MAPPING_SPEED = 0.01  # learning rate of the mapping network beside that of the rest


@dataclass(frozen=True)
class StyleGAN2Config(QuantizationConfig):
    image_size: int
    widths: tuple[int, ...]  # channels of the smallest map, and after each doubling of its side; of both networks
    in_channels: int = 3
    noise: int = 512  # D
    mapping_layers: int = 8
    prior: Literal["normal"] = "normal"

    def __post_init__(self) -> None:
        times = len(self.widths) - 1
        if times < 1:
            raise ValueError(f"widths has 2 numbers or more, got {len(self.widths)}")
        if self.image_size % 2**times:
            raise ValueError(f"an image of {self.image_size} pixels is not halved evenly {times} times")
        check_quantization(self, times)

    @property
    def side(self) -> int:
        """Pixels a side of the smallest map."""
        return self.image_size // 2 ** (len(self.widths) - 1)

    @property
    def styles(self) -> int:
        """L: one for every convolution, and the last one's image layer; those between share the next one's."""
        return 2 * len(self.widths)


def rectify(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, which keeps the variance."""
    return F.leaky_relu(x, 0.2) * 2**0.5


class Mapping(nn.Module):
    """z (B, D) → w (B, D): brought to unit mean square, then linear layers."""

    def __init__(self, c: StyleGAN2Config):
        super().__init__()
        self.layers = nn.ModuleList(
            EqualisedLinear(c.noise, c.noise, lr_multiplier=MAPPING_SPEED) for _ in range(c.mapping_layers)
        )

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)
        for layer in self.layers:
            x = rectify(layer(x))
        return x


class StyledConv(nn.Module):
    """A modulated convolution, then noise, bias and the activation (figure 2c)."""

    def __init__(self, inputs: int, outputs: int, side: int, style: int, *, upsample: bool):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style, upsample=upsample)
        self.noise = NoiseInjection(side)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        out = self.noise(self.conv(x, style), noise)
        return rectify(out + self.bias[:, None, None].to(out.dtype))


class ToImage(nn.Module):
    """Maps → an image, added to that of half the side (section 4.1)."""

    def __init__(self, inputs: int, channels: int, style: int, *, first: bool):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, channels, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.upsample = None if first else Doubling()

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None) -> Tensor:
        found = self.conv(x, style) + self.bias[:, None, None]
        return found if self.upsample is None else found + self.upsample(image)


class Generator(nn.Module):
    """Noise (B, D) → images (B, C, S, S), not bounded, about in [-1, 1]."""

    def __init__(self, c: StyleGAN2Config):
        super().__init__()
        self.styles = c.styles
        self.mapping = Mapping(c)
        self.constant = nn.Parameter(torch.randn(1, c.widths[0], c.side, c.side))
        convs = [StyledConv(c.widths[0], c.widths[0], c.side, c.noise, upsample=False)]
        for n, (inputs, outputs) in enumerate(pairwise(c.widths), 1):
            side = c.side * 2**n
            convs += [
                StyledConv(inputs, outputs, side, c.noise, upsample=True),
                StyledConv(outputs, outputs, side, c.noise, upsample=False),
            ]
        self.convs = nn.ModuleList(convs)
        self.to_image = nn.ModuleList(
            ToImage(width, c.in_channels, c.noise, first=n == 0) for n, width in enumerate(c.widths)
        )

    def latents(self, noise: Tensor) -> Tensor:
        """The style of every layer, (B, L, D); all are the same."""
        w: Tensor = self.mapping(noise)
        return w[:, None].expand(-1, self.styles, -1)

    def synthesise(self, latents: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor:
        """Images (B, C, S, S) of styles (B, L, D), and of the noise of every convolution where it is given."""
        x = self.constant.repeat(latents.shape[0], 1, 1, 1)  # len() would fix it in an export
        image = None
        for n, conv in enumerate(self.convs):
            x = conv(x, latents[:, n], None if maps is None else maps[n])
            if n % 2 == 0:
                image = self.to_image[n // 2](x, latents[:, n + 1], image)
        assert image is not None, "there is a first convolution"
        return image

    def forward(self, noise: Tensor) -> Tensor:
        return self.synthesise(self.latents(noise))


class ResidualBlock(nn.Module):
    """(B, inputs, H, W) → (B, outputs, H / 2, W / 2) (figure 7c)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = EqualisedConv2d(inputs, inputs, 3, padding=1)
        self.blur = LowPass(2, 2)
        self.conv2 = EqualisedConv2d(inputs, outputs, 3, stride=2)
        self.halve = halving()
        self.skip = EqualisedConv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = rectify(self.conv2(self.blur(rectify(self.conv1(x)))))
        return (out + self.skip(self.halve(x))) / 2**0.5


class Discriminator(nn.Module):
    """Images (B, C, S, S) → scores (B,)."""

    def __init__(self, c: StyleGAN2Config):
        super().__init__()
        self.config = c
        widths = c.widths[::-1]
        self.from_image = EqualisedConv2d(c.in_channels, widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(inputs, outputs) for inputs, outputs in pairwise(widths)))
        self.quantizers = Quantizers(c, widths[1:])
        self.differences = MinibatchStddev()
        self.conv = EqualisedConv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.hidden = EqualisedLinear(widths[-1] * c.side**2, widths[-1])
        self.score = EqualisedLinear(widths[-1], 1)

    def forward(self, images: Tensor, heard: list[QuantizedFeatures] | None = None) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        x = rectify(self.from_image(images))
        for n, block in enumerate(self.blocks):
            x = self.quantizers.after(n, block(x), heard)
        x = rectify(self.conv(self.differences(x)))
        scores: Tensor = self.score(rectify(self.hidden(x.flatten(1))))
        return scores.flatten()


class StyleGAN2(Styled, AdversarialPair):
    """Noise (B, D) to images (B, C, S, S), and images to scores (B,); between noise and image, styles (B, L, D)."""

    objective = "stylegan2"
    generator: Generator

    def __init__(self, config: StyleGAN2Config):
        super().__init__(config, Generator(config), Discriminator(config))

    def noise_maps(self, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """The noise (count, 1, s, s) of every convolution."""
        stored = (noise for name, noise in self.generator.named_buffers() if name.endswith(".stored"))
        return [torch.randn(count, *noise.shape[1:], generator=generator) for noise in stored]


def config_f(image_size: int) -> StyleGAN2Config:
    """Configuration F of the paper at this size: 32,768 channels over the side, at most 512."""
    sides = (2**n for n in range(2, image_size.bit_length()))
    return StyleGAN2Config(image_size, tuple(min(512, 2**15 // side) for side in sides))


VARIANTS = {
    "stylegan2_256": config_f(256),
    "stylegan2_512": config_f(512),
    "stylegan2_1024": config_f(1024),
    "stylegan2_nano": StyleGAN2Config(28, (64, 48, 32), in_channels=1, noise=64, mapping_layers=4),
}


def infer_config(config: StyleGAN2Config, source: str, lookup: Any) -> dict[str, Any]:
    """How wide the maps are, as a checkpoint's shapes say: official code halves them below 512 pixels on request."""
    found: dict[str, Any] = {}
    widths = [lookup(f"generator.to_image.{n}.conv.weight") for n in range(len(config.widths))]
    if all(weight is not None for weight in widths):
        found["widths"] = tuple(weight.shape[1] for weight in widths)
    return found


LANDMARK = Landmark(
    model=StyleGAN2,
    variants=VARIANTS,
    names={"rosinality": rosinality_names},
    infer_config=infer_config,
    not_weights={"rosinality": NOT_WEIGHTS},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise,
)
