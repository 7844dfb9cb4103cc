"""pix2pix: a U-Net translates images, a discriminator of patches judges them beside what they were made of.

Isola et al. 2016 (arXiv:1611.07004), section 3.2 and appendix 6.1. Legend: B images, H x W pixels, W channels at half
the image's side. Level n has maps of a 2^(n+1)-th of the side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.models.translation.contract import Direction, ImageTranslator, check_sizes
from orchard.nn.conv import initialise_normal
from orchard.nn.patch_discriminator import PatchDiscriminator

SLOPE = 0.2  # of the leaky ReLU
STD = 0.02  # of all weights at the start (section 3.3 of the appendix)
WIDEST = 8  # times the first width
FIRST_DROPPED = 4  # the level from which on the decoder has dropout, but for the smallest


@dataclass(frozen=True)
class Pix2PixConfig:
    image_size: int = 256
    in_channels: int = 3
    out_channels: int = 3
    levels: int = 8  # times that the image is halved; images of 2^levels pixels come down to one
    width: int = 64
    dropout: float = 0.5
    discriminator_width: int = 64
    discriminator_layers: int = 3  # of stride 2; with 3 a score is of 70 x 70 pixels

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"levels is {self.levels}, expected 2 or more")
        check_sizes(self.image_size, 2**self.levels, self.discriminator_layers)

    @property
    def widths(self) -> list[int]:
        """Channels of every level."""
        return [self.width * min(2**n, WIDEST) for n in range(self.levels)]


class PerImageBatchNorm(nn.BatchNorm2d):
    """Batch norm that in evaluation takes the statistics of the image at hand (section 3.4).

    The authors test with the statistics of the test batch, which is one image. The running ones are kept for official
    files, and not used.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            return super().forward(input)
        return F.group_norm(input, self.num_features, self.weight, self.bias, self.eps)


class UNetGenerator(nn.Module):
    """Images (B, C, H, W) → (B, C', H, W) in [-1, 1]; sides are multiples of 2^levels.

    The encoder halves with 4x4 convolutions, the decoder doubles with transposed ones and reads, at each level but the
    smallest, the encoder's map of that size too.
    """

    def __init__(self, c: Pix2PixConfig):
        super().__init__()
        widths, last = c.widths, c.levels - 1
        self.down, self.down_norms, self.up, self.up_norms, self.drops = (nn.ModuleList() for _ in range(5))
        for n, width in enumerate(widths):
            inputs = widths[n - 1] if n else c.in_channels
            outputs = widths[n - 1] if n else c.out_channels
            self.down.append(nn.Conv2d(inputs, width, 4, stride=2, padding=1, bias=False))
            self.down_norms.append(PerImageBatchNorm(width) if 0 < n < last else nn.Identity())
            read = width if n == last else 2 * width
            self.up.append(nn.ConvTranspose2d(read, outputs, 4, stride=2, padding=1, bias=n == 0))
            self.up_norms.append(PerImageBatchNorm(outputs) if n else nn.Identity())
            self.drops.append(nn.Dropout(c.dropout) if FIRST_DROPPED <= n < last else nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        x, maps = images, []
        for n, (conv, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            x = norm(conv(F.leaky_relu(x, SLOPE) if n else x))
            maps.append(x)
        for n in reversed(range(len(self.up))):
            both = x if n == len(self.up) - 1 else torch.cat([maps[n], x], dim=1)
            x = self.drops[n](self.up_norms[n](self.up[n](F.relu(both))))
        return x.tanh()


class Pix2Pix(ImageTranslator):
    """Images (B, C, H, W) to (B, C', H, W), both in [-1, 1]; and a judge of both together."""

    def __init__(self, config: Pix2PixConfig):
        super().__init__()
        self.config = config
        self.generator = UNetGenerator(config)
        self.discriminator = PatchDiscriminator(
            config.in_channels + config.out_channels, width=config.discriminator_width,
            layers=config.discriminator_layers,
        )  # fmt: skip
        initialise_normal(self, STD)

    @property
    def multiple(self) -> int:
        return int(2**self.config.levels)

    @property
    def directions(self) -> tuple[Direction, ...]:
        return ("AtoB",)

    def channels(self, side: str) -> int:
        return int(self.config.in_channels if side == "A" else self.config.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        self.check(images, self.config.in_channels)
        translated: Tensor = self.generator(images)
        return translated

    def translate(self, images: Tensor, direction: Direction = "AtoB") -> Tensor:
        if direction not in self.directions:
            raise ValueError(f"expected the direction {self.directions[0]}, got {direction}")
        found: Tensor = self(images)
        return found

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters: the generator's, then the discriminator's."""
        return [(GENERATOR,), (DISCRIMINATOR,)]


def junyanz_names(config: Any) -> list[tuple[str, str]]:
    """The names of junyanz/pytorch-CycleGAN-and-pix2pix, whose files hold one network each. Its U-Net is a block in a
    block: the outer's place 1 or 3 is the inner one."""
    rows, block, last = [], f"{GENERATOR}model.model.", config.levels - 1
    for n in range(config.levels):
        outer, inner = n == 0, n == last
        rows.append((f"generator.down.{n}.{{}}", f"{block}{0 if outer else 1}.{{}}"))
        rows.append((f"generator.down_norms.{n}.{{}}", f"{block}2.{{}}"))
        up = 3 if outer or inner else 5
        rows.append((f"generator.up.{n}.{{}}", f"{block}{up}.{{}}"))
        rows.append((f"generator.up_norms.{n}.{{}}", f"{block}{up + 1}.{{}}"))
        block += f"{1 if outer else 3}.model."
    return [*rows, ("discriminator.layers.{}", f"{DISCRIMINATOR}model.{{}}")]


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Widths and channels, read off the first convolution and the last of both networks."""
    first, last = lookup("generator.down.0.weight"), lookup("generator.up.0.weight")
    judge = lookup("discriminator.layers.0.weight")
    found: dict[str, Any] = {}
    if first is not None and last is not None:
        found |= {"width": len(first), "in_channels": first.shape[1], "out_channels": last.shape[1]}
    return found if judge is None else {**found, "discriminator_width": len(judge)}


VARIANTS = {
    "pix2pix": Pix2PixConfig(),
    "pix2pix_unet128": Pix2PixConfig(image_size=128, levels=7),
    "pix2pix_nano": Pix2PixConfig(
        image_size=64, levels=6, width=16, discriminator_width=16, discriminator_layers=2
    ),
}  # fmt: skip
LANDMARK = Landmark(
    model=Pix2Pix,
    variants=VARIANTS,
    names={"junyanz": junyanz_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0, "interpolation": "bicubic"}},
)
