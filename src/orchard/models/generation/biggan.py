"""BigGAN: class-conditional generation at scale (Brock, Donahue, Simonyan 2018, arXiv:1809.11096).

SAGAN's networks, wider, with two changes in the generator (section 3 and appendix B): the noise is cut into chunks, of
which one begins the image and each block has one, and one embedding of the class is shared by all blocks. A block's
chunk and that embedding are what the gains and biases of its norms are made of. Legend: B images, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
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

SPECTRAL_EPS, NORM_EPS = 1e-6, 1e-5


@dataclass(frozen=True)
class BigGANConfig(BlocksConfig):
    noise: int = 120  # numbers that an image is made of, the same share for its beginning and each block
    class_width: int = 128  # of the embedding that all blocks share

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise % len(self.generator_widths):
            raise ValueError(f"noise is {self.noise}, expected a multiple of {len(self.generator_widths)} (blocks + 1)")

    @property
    def chunk(self) -> int:
        """Numbers of the noise for each block."""
        return self.noise // len(self.generator_widths)


class Generator(nn.Module):
    """Noise (B, noise) and labels (B,) → images (B, C, S, S) in [-1, 1] (appendix B, figure 15)."""

    def __init__(self, c: BigGANConfig):
        super().__init__()
        self.chunk = c.chunk
        widths, side = c.generator_widths, c.image_size // 2 ** (len(c.generator_widths) - 1)
        self.start = (widths[0], side, side)
        self.class_embedding = nn.Embedding(c.num_classes, c.class_width)
        self.project = SpectralLinear(c.chunk, widths[0] * side**2, bias=True, eps=SPECTRAL_EPS)

        def norm(channels: int) -> ConditionalBatchNorm2d:
            gain, bias = (
                SpectralLinear(c.class_width + c.chunk, channels, bias=False, eps=SPECTRAL_EPS) for _ in range(2)
            )
            return ConditionalBatchNorm2d(channels, gain, bias, eps=NORM_EPS)

        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs, outputs, norm, eps=SPECTRAL_EPS) for inputs, outputs in pairwise(widths)
        )
        self.attention = attention_after(c.generator_attention, widths[1:], SPECTRAL_EPS)
        self.norm = UncountedBatchNorm2d(widths[-1], eps=NORM_EPS)
        self.to_image = SpectralConv2d(widths[-1], c.in_channels, 3, bias=True, eps=SPECTRAL_EPS)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        embedded = self.class_embedding(labels)
        first, *chunks = torch.split(noise, self.chunk, dim=1)
        x = self.project(first).unflatten(1, self.start)
        for block, attention, chunk in zip(self.blocks, self.attention, chunks, strict=True):
            x = attention(block(x, torch.cat([embedded, chunk], dim=1)))
        images: Tensor = self.to_image(F.relu(self.norm(x)))
        return images.tanh()


class BigGAN(ConditionalPair):
    """Noise (B, noise) and labels (B,) to images (B, C, S, S) in [-1, 1], and images with labels to scores (B,)."""

    objective = "hinge"

    def __init__(self, config: BigGANConfig):
        super().__init__(config, Generator(config), ProjectionDiscriminator(config, eps=SPECTRAL_EPS))
        initialise_weights(self, nn.init.orthogonal_)


def wide(*multiples: int) -> tuple[int, ...]:
    """Channels in units of 96."""
    return tuple(96 * multiple for multiple in multiples)


VARIANTS = {
    "biggan128": BigGANConfig(wide(16, 16, 8, 4, 2, 1), (3,), wide(1, 2, 4, 8, 16, 16), (0,), halvings=5),
    "biggan256": BigGANConfig(
        wide(16, 16, 8, 8, 4, 2, 1), (3,), wide(1, 2, 4, 8, 8, 16, 16), (1,), halvings=6, image_size=256, noise=140
    ),
    "biggan_nano": BigGANConfig(
        (64, 64, 32), (0,), (32, 64, 64), (0,), halvings=2, image_size=28, in_channels=1, num_classes=10, noise=60,
        class_width=32,
    ),
}  # fmt: skip


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """How many classes and how much noise a checkpoint has."""
    table, project = (lookup(f"generator.{part}.weight") for part in ("class_embedding", "project"))
    if table is None or project is None:
        return {}
    return {"num_classes": len(table), "noise": project.shape[1] * len(config.generator_widths)}


LANDMARK = Landmark(
    model=BigGAN,
    variants=VARIANTS,
    names={"ajbrock": ajbrock_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise_and_labels,
)
