"""A U-Net of partial convolutions that fills irregular holes.

Liu et al. 2018 (arXiv:1804.07723), section 3.2 and table of the supplement. Legend: B images, H x W pixels. Level n has
maps of a 2^(n+1)-th of the side, and beside each map what of it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.translation.inpainting import COLOURS, Inpainter
from orchard.nn.checks import check_images
from orchard.nn.partial_conv import MeanPartialConv2d, PartialConv2d
from orchard.nn.vgg_features import MEAN, STD

SLOPE = 0.2  # of the decoder's leaky ReLU
KERNELS = (7, 5, 5)  # of the first levels; the others have 3
SHARE = 0.6  # of pixels that are known in an example


@dataclass(frozen=True)
class PConvUNetConfig:
    image_size: int = 256
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)  # channels of every level
    window: bool = True  # is the sum multiplied by the window's size, as in the paper? naoto0804's weights were not

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise ValueError(f"widths has {len(self.widths)} levels, expected 2 or more")
        if self.image_size % 2 ** len(self.widths):
            raise ValueError(f"image_size is {self.image_size}, expected a multiple of {2 ** len(self.widths)}")

    @property
    def in_channels(self) -> int:
        return COLOURS


@dataclass(frozen=True)
class Filled:
    """images: (B, 3, H, W); known: (B, 1, H, W), 1 where anything was seen."""

    images: Tensor
    known: Tensor


class Level(nn.Module):
    """A partial convolution, and a norm that the first of the encoder and the last of the decoder are without."""

    def __init__(self, partial: PartialConv2d, *, norm: bool):
        super().__init__()
        self.partial = partial
        self.norm = nn.BatchNorm2d(partial.conv.out_channels) if norm else nn.Identity()

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        x, known = self.partial(x, known)
        return self.norm(x), known


class PConvUNet(Inpainter):
    """Images as VGG has them, less ImageNet's mean and over its standard deviation, and what of them is known, filled.

    The encoder halves; the decoder doubles by repeating pixels and reads, at each level, the encoder's map too, and at
    last the images.
    """

    def __init__(self, config: PConvUNetConfig):
        super().__init__()
        self.config = config
        conv, widths = PartialConv2d if config.window else MeanPartialConv2d, config.widths
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for n, (inputs, width) in enumerate(zip((COLOURS, *widths), widths, strict=False)):
            kernel = KERNELS[n] if n < len(KERNELS) else 3
            self.down.append(Level(conv(inputs, width, kernel, 2, kernel // 2, bias=False), norm=n > 0))
            self.up.append(Level(conv(width + inputs, inputs, 3, 1, 1, bias=n == 0), norm=n > 0))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def multiple(self) -> int:
        return int(2 ** len(self.config.widths))

    def forward(self, images: Tensor, known: Tensor) -> Filled:
        self.check(images, COLOURS)
        check_images(known, 1, (images.shape[2], images.shape[3]))
        seen = [(images, known)]
        for level in self.down:
            x, known = level(*seen[-1])
            seen.append((x.relu(), known))
        x, known = seen.pop()
        for n in reversed(range(len(seen))):
            beside, beside_known = seen[n]
            x, known = (F.interpolate(one, scale_factor=2, mode="nearest") for one in (x, known))
            both = torch.cat([known.expand_as(x), beside_known.expand_as(beside)], 1)
            x, known = self.up[n](torch.cat([x, beside], 1), both)
            x = F.leaky_relu(x, SLOPE) if n else x
        return Filled(x, known)

    def fill(self, images: Tensor, known: Tensor) -> Tensor:
        mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
        found = self(((images + 1) / 2 - mean) / std, known).images
        result: Tensor = (found * std + mean) * 2 - 1
        return result

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters, from the pixels to the smallest map and back."""
        order = range(len(self.config.widths))
        return [*((f"down.{n}.",) for n in order), *((f"up.{n}.",) for n in reversed(order))]


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Arguments of `forward`."""
    shape = (count, COLOURS, config.image_size, config.image_size)
    known = torch.rand(count, 1, *shape[2:], generator=generator) < SHARE
    return {"images": torch.randn(shape, generator=generator), "known": known.float()}


def naoto0804_names(config: Any) -> list[tuple[str, str]]:
    """The names of naoto0804/pytorch-inpainting-with-partial-conv."""
    rows = []
    for n in range(len(config.widths)):
        for ours, theirs in ((f"down.{n}", f"enc_{n + 1}"), (f"up.{n}", f"dec_{n + 1}")):
            rows += [
                (f"{ours}.partial.conv.{{}}", f"{theirs}.conv.input_conv.{{}}"),
                (f"{ours}.norm.{{}}", f"{theirs}.bn.{{}}"),
            ]
    return rows


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Widths, read off the encoder; those weights are without the window's size."""
    found = [lookup(f"down.{n}.partial.conv.weight") for n in range(len(config.widths))]
    widths = tuple(len(weight) for weight in found if weight is not None)
    return {"window": False, **({"widths": widths} if widths else {})}


VARIANTS = {
    "pconv_unet": PConvUNetConfig(),
    "pconv_unet_512": PConvUNetConfig(512, (64, 128, 256, 512, 512, 512, 512, 512)),
    "pconv_unet_nano": PConvUNetConfig(64, (16, 32, 48, 64, 64)),
}
LANDMARK = Landmark(
    model=PConvUNet,
    variants=VARIANTS,
    names={"naoto0804": naoto0804_names},
    infer_config=infer_config,
    not_weights={"naoto0804": ("*.mask_conv.weight",)},  # ones, which count what is known
    example=example,
)
