"""What a translator attends to: an auxiliary classifier's class activation map, in generators and discriminators.

Kim et al. 2019 (arXiv:1907.10830, section 3.1), and the authors' PyTorch code. Legend: B images, W channels of a map of
h x w.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models.generation.quantized_blocks import QuantizationConfig, Quantizers
from orchard.nn.checks import check_images
from orchard.nn.feature_quantizer import QuantizedFeatures
from orchard.nn.torch_spectral_norm import TorchSpectralConv2d, TorchSpectralLinear

SLOPE = 0.2  # of the leaky ReLU


@dataclass(frozen=True)
class Judged:
    """What a discriminator says of images, larger for real.

    scores: (B, 1, h, w), of overlapping patches;
    logits: (B, 2), of its auxiliary classifier, by the mean and by the maximum of features;
    heat: (B, 1, h', w'), where it looked.
    """

    scores: Tensor
    logits: Tensor
    heat: Tensor


class ClassActivation(nn.Module):
    """Features (B, W, h, w) to the same, weighed by how much each of them speaks for a class, and logits (B, 2).

    `linear(W)` makes a classifier of features (B, W) → (B, 1): of means and of maxima each has one. The features times
    the weights of both are mixed into W again. Of a spectrally normalised classifier the weight before it is normalised
    is taken, as the released code does.
    """

    def __init__(self, width: int, linear: Callable[[int], nn.Linear], activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.mean, self.maximum = linear(width), linear(width)
        self.mix = nn.Conv2d(2 * width, width, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.cat([self.mean(x.mean((2, 3))), self.maximum(x.amax((2, 3)))], dim=1)
        weights = torch.cat([self.mean.weight, self.maximum.weight], dim=1)[:, :, None, None]  # (1, 2W, 1, 1)
        return self.activation(self.mix(torch.cat([x, x], dim=1) * weights)), logits


def heat_of(features: Tensor) -> Tensor:
    """Where features (B, W, h, w) are strong, (B, 1, h, w)."""
    return features.sum(1, keepdim=True)


class AttentionDiscriminator(nn.Module):
    """Images (B, C, H, W) to what is said of their patches, all weights but one spectrally normalised.

    `layers` counts as in the official code: `layers` - 2 convolutions halve, one keeps the size but for a pixel, and
    one gives scores. With seven a score is of most of an image of 256 pixels, with five of a part. Maps of the
    convolutions named in `c.quantize` are quantized (FQ-GAN, arXiv:2004.02088); `heard` as in `nn/feature_quantizer`.
    """

    def __init__(self, in_channels: int, width: int, layers: int, c: QuantizationConfig):
        super().__init__()
        self.in_channels, self.least = in_channels, least_side(layers)
        widths = [width * 2**n for n in range(layers - 1)]
        self.convs = nn.ModuleList(
            TorchSpectralConv2d(
                inputs, outputs, 4, stride=2 if n < layers - 2 else 1, padding=1, padding_mode="reflect", bias=True
            )
            for n, (inputs, outputs) in enumerate(zip((in_channels, *widths), widths, strict=False))
        )
        self.quantizers = Quantizers(c, widths)
        self.attention = ClassActivation(
            widths[-1], lambda width: TorchSpectralLinear(width, 1, bias=False), leaky_relu
        )
        self.score = TorchSpectralConv2d(
            widths[-1], 1, 4, stride=1, padding=1, padding_mode="reflect", bias=False
        )  # fmt: skip

    def forward(self, images: Tensor, heard: list[QuantizedFeatures] | None = None) -> Judged:
        check_images(images, self.in_channels, least=self.least)
        x = images
        for n, conv in enumerate(self.convs):
            x = self.quantizers.after(n, leaky_relu(conv(x)), heard)
        x, logits = self.attention(x)
        return Judged(self.score(x), logits, heat_of(x))


class Judges(nn.ModuleDict):
    """The discriminators of one side: `global`, of large patches, whose maps may be quantized, and `local`."""

    def __init__(self, in_channels: int, width: int, layers: tuple[int, int], c: QuantizationConfig):
        super().__init__({
            "global": AttentionDiscriminator(in_channels, width, layers[0], c),
            "local": AttentionDiscriminator(in_channels, width, layers[1], replace(c, quantize=())),
        })  # fmt: skip

    def forward(self, images: Tensor, heard: list[QuantizedFeatures] | None = None) -> tuple[Judged, ...]:
        return tuple(judge(images, heard) for judge in self.values())


def least_side(layers: int) -> int:
    """Pixels a side that a discriminator needs: each of the two last convolutions takes a pixel of its map away."""
    return 3 * int(2 ** (layers - 2))


def leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)
