"""SAGAN: self-attention in an adversarial pair (Zhang, Goodfellow, Metaxas, Odena 2018, arXiv:1805.08318).

Residual networks of SNGAN with a block of attention in each (section 3), spectral norm in the generator too
(section 4.1), and the class in the generator's norms and in the discriminator's projection. Legend: B images, S pixels
a side.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.conditional_blocks import (
    BlocksConfig,
    GeneratorBlock,
    ProjectionDiscriminator,
    ajbrock_names,
    attention_after,
    initialise_weights,
)
from orchard.models.generation.pair import ConditionalPair, example_noise_and_labels
from orchard.nn.conditional_norm import ConditionalBatchNorm2d, UncountedBatchNorm2d
from orchard.nn.spectral_norm import SpectralConv2d, SpectralLinear

SPECTRAL_EPS, NORM_EPS = 1e-8, 1e-5


class Generator(nn.Module):
    """Noise (B, noise) and labels (B,) → images (B, C, S, S) in [-1, 1]; a class has gains and biases of its own."""

    def __init__(self, c: BlocksConfig):
        super().__init__()
        widths, side = c.generator_widths, c.image_size // 2 ** (len(c.generator_widths) - 1)
        self.start = (widths[0], side, side)
        self.project = SpectralLinear(c.noise, widths[0] * side**2, bias=True, eps=SPECTRAL_EPS)

        def norm(channels: int) -> ConditionalBatchNorm2d:
            gain, bias = (nn.Embedding(c.num_classes, channels) for _ in range(2))
            return ConditionalBatchNorm2d(channels, gain, bias, eps=NORM_EPS)

        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs, outputs, norm, eps=SPECTRAL_EPS) for inputs, outputs in pairwise(widths)
        )
        self.attention = attention_after(c.generator_attention, widths[1:], SPECTRAL_EPS)
        self.norm = UncountedBatchNorm2d(widths[-1], eps=NORM_EPS)
        self.to_image = SpectralConv2d(widths[-1], c.in_channels, 3, bias=True, eps=SPECTRAL_EPS)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        x = self.project(noise).unflatten(1, self.start)
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x, labels))
        images: Tensor = self.to_image(F.relu(self.norm(x)))
        return images.tanh()


class SAGAN(ConditionalPair):
    """Noise (B, noise) and labels (B,) to images (B, C, S, S) in [-1, 1], and images with labels to scores (B,)."""

    objective = "hinge"

    def __init__(self, config: BlocksConfig):
        super().__init__(config, Generator(config), ProjectionDiscriminator(config, eps=SPECTRAL_EPS))
        initialise_weights(self, nn.init.xavier_uniform_)


VARIANTS = {
    "sagan": BlocksConfig((1024, 1024, 512, 256, 128, 64), (3,), (64, 128, 256, 512, 1024, 1024), (0,), halvings=5),
    "sagan_nano": BlocksConfig(
        (64, 64, 32), (0,), (32, 64, 64), (0,), halvings=2, image_size=28, in_channels=1, num_classes=10, noise=64
    ),
}


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """How many classes a checkpoint has."""
    table = lookup("generator.blocks.0.norm1.gain.weight")
    return {} if table is None else {"num_classes": len(table)}


LANDMARK = Landmark(
    model=SAGAN,
    variants=VARIANTS,
    names={"ajbrock": ajbrock_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise_and_labels,
)
