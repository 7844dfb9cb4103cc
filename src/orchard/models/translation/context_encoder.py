"""Context encoders: a generator draws what is missing of an image, a discriminator judges what it drew.

Pathak et al. 2016 (arXiv:1604.07379), section 3 and figure 9, in the sizes of the authors' code. Legend: S the image's
side, W channels of the first layer.
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
from orchard.models.translation.inpainting import COLOURS, Inpainter
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_normal

SLOPE = 0.2  # of leaky ReLUs, in the encoder and the discriminator
STD = 0.02  # of all weights at the start
SMALLEST = 4  # pixels a side of the encoder's last map
BLANK = tuple(2 * level / 255 - 1 for level in (117, 104, 123))  # what a hole is shown as, ImageNet's mean


@dataclass(frozen=True)
class ContextEncoderConfig:
    image_size: int = 128
    width: int = 64
    bottleneck: int = 4000
    discriminator_width: int = 64
    whole: bool = False  # does it draw all of the image, for holes anywhere? Else the middle half of either side
    overlap: int = 4  # pixels around the hole that are drawn though they are known; of holes in the middle

    def __post_init__(self) -> None:
        size = self.image_size
        if size < 8 * SMALLEST or size & (size - 1):
            raise ValueError(f"image_size is {size}, expected a power of two from {8 * SMALLEST} on")
        if not 0 <= self.overlap < size // 8:
            raise ValueError(f"overlap is {self.overlap}, expected 0 to {size // 8 - 1} at image_size {size}")

    @property
    def in_channels(self) -> int:
        return COLOURS

    @property
    def drawn(self) -> int:
        """Side of what the generator draws."""
        return self.image_size if self.whole else self.image_size // 2

    @property
    def levels(self) -> int:
        """Times that the encoder halves."""
        return (self.image_size // SMALLEST).bit_length() - 1

    @property
    def widths(self) -> list[int]:
        """Channels of the encoder's levels."""
        return [self.width * 2 ** max(0, n - 1) for n in range(self.levels)]


class Generator(nn.Module):
    """Images with blank holes (B, 3, S, S) to what belongs there, (B, 3, D, D) in [-1, 1]."""

    def __init__(self, c: ContextEncoderConfig):
        super().__init__()
        down = [COLOURS, *c.widths]
        up = [c.bottleneck, *reversed(c.widths if c.whole else c.widths[1:])]
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(down)
        )  # fmt: skip
        self.down_norms = nn.ModuleList(nn.BatchNorm2d(b) if n else nn.Identity() for n, b in enumerate(c.widths))
        self.narrow = nn.Conv2d(down[-1], c.bottleneck, SMALLEST, bias=False)
        self.narrow_norm = nn.BatchNorm2d(c.bottleneck)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, 2 if n else 1, 1 if n else 0, bias=False)
            for n, (a, b) in enumerate(pairwise(up))
        )
        self.up_norms = nn.ModuleList(nn.BatchNorm2d(width) for width in up[1:])
        self.draw = nn.ConvTranspose2d(up[-1], COLOURS, 4, 2, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv, norm in zip(self.down, self.down_norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), SLOPE)
        x = F.leaky_relu(self.narrow_norm(self.narrow(x)), SLOPE)
        for conv, norm in zip(self.up, self.up_norms, strict=True):
            x = norm(conv(x)).relu()
        drawn: Tensor = self.draw(x).tanh()
        return drawn


class Discriminator(nn.Module):
    """What belongs into the hole, (B, 3, D, D), to scores (B, 1, 1, 1), larger for real."""

    def __init__(self, c: ContextEncoderConfig):
        super().__init__()
        count = (c.drawn // SMALLEST).bit_length() - 1
        widths = [COLOURS, *(c.discriminator_width * 2 ** min(n, 3) for n in range(count))]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(widths)
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) if n else nn.Identity() for n, b in enumerate(widths[1:]))
        self.judge = nn.Conv2d(widths[-1], 1, SMALLEST, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        for conv, norm in zip(self.layers, self.norms, strict=True):
            images = F.leaky_relu(norm(conv(images)), SLOPE)
        scores: Tensor = self.judge(images)
        return scores


class ContextEncoder(Inpainter):
    """Images with blank holes (B, 3, S, S) to what belongs there."""

    needs_window = True
    least_batch = 2  # as its bottleneck has one pixel, over which norms can say nothing alone

    def __init__(self, config: ContextEncoderConfig):
        super().__init__()
        self.config = config
        self.generator, self.discriminator = Generator(config), Discriminator(config)
        initialise_normal(self, STD)

    @property
    def holes(self) -> str:
        return "blocks" if self.config.whole else "centre"

    @property
    def hole_share(self) -> float | None:
        c = self.config
        return None if c.whole else ((c.drawn - 2 * c.overlap) / c.image_size) ** 2

    @property
    def multiple(self) -> int:
        return int(self.config.image_size)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, COLOURS, (self.config.image_size,) * 2)
        drawn: Tensor = self.generator(images)
        return drawn

    def blanked(self, images: Tensor, known: Tensor) -> Tensor:
        """Images with the colour of holes where `known` (B, 1, S, S) is 0."""
        return images.where(known > 0, images.new_tensor(BLANK).view(1, -1, 1, 1))

    def part(self, images: Tensor) -> Tensor:
        """What of images the generator draws, (B, C, D, D)."""
        edge = (self.config.image_size - self.config.drawn) // 2
        return images[:, :, edge : edge + self.config.drawn, edge : edge + self.config.drawn]

    def fill(self, images: Tensor, known: Tensor) -> Tensor:
        blank = self.blanked(images, known)
        edge = (self.config.image_size - self.config.drawn) // 2
        inside = F.pad(torch.ones_like(self.part(known)), (edge,) * 4)
        return torch.where(inside > 0, F.pad(self(blank), (edge,) * 4), blank)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters: the generator's, then the discriminator's."""
        return [("generator.",), ("discriminator.",)]


def boyuanjiang_names(config: Any) -> list[tuple[str, str]]:
    """The names of BoyuanJiang/context_encoder_pytorch, with netG and netD before those of either file."""
    g, rows = "netG.main.", [("generator.down.0.{}", "netG.main.0.{}")]
    place = 2  # convolution, norm, activation; the first has no norm
    for n in range(1, config.levels):
        rows += [
            (f"generator.down.{n}.{{}}", f"{g}{place}.{{}}"),
            (f"generator.down_norms.{n}.{{}}", f"{g}{place + 1}.{{}}"),
        ]
        place += 3
    rows += [("generator.narrow.{}", f"{g}{place}.{{}}"), ("generator.narrow_norm.{}", f"{g}{place + 1}.{{}}")]
    place += 3
    for n in range(config.levels - (not config.whole)):
        rows += [
            (f"generator.up.{n}.{{}}", f"{g}{place}.{{}}"),
            (f"generator.up_norms.{n}.{{}}", f"{g}{place + 1}.{{}}"),
        ]
        place += 3
    rows += [("generator.draw.{}", f"{g}{place}.{{}}"), ("discriminator.layers.0.{}", "netD.main.0.{}")]
    count, place = (config.drawn // SMALLEST).bit_length() - 1, 2
    for n in range(1, count):
        rows += [
            (f"discriminator.layers.{n}.{{}}", f"netD.main.{place}.{{}}"),
            (f"discriminator.norms.{n}.{{}}", f"netD.main.{place + 1}.{{}}"),
        ]
        place += 3
    return [*rows, ("discriminator.judge.{}", f"netD.main.{place}.{{}}")]


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Widths, read off the first convolutions and the bottleneck."""
    names = {"width": "generator.down.0.weight", "bottleneck": "generator.narrow.weight",
             "discriminator_width": "discriminator.layers.0.weight"}  # fmt: skip
    found = {key: lookup(name) for key, name in names.items()}
    return {key: len(weight) for key, weight in found.items() if weight is not None}


VARIANTS = {
    "context_encoder": ContextEncoderConfig(),
    "context_encoder_random": ContextEncoderConfig(whole=True, overlap=0),
    "context_encoder_nano": ContextEncoderConfig(64, 16, 128, 16, overlap=2),
}
LANDMARK = Landmark(
    model=ContextEncoder,
    variants=VARIANTS,
    names={"boyuanjiang": boyuanjiang_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0, "interpolation": "bicubic"}},
)
