"""MSRResNet: SRResNet without norms, the baseline beside ESRGAN (Wang et al. 2018, arXiv:1809.00219), as KAIR has it.

Two networks go by this name. The first keeps SRResNet's skip around all blocks and enlarges by doubling pixels before a
convolution. The second adds what it finds to the image enlarged bilinearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.restoration.contract import SuperResolver, example_at
from orchard.nn.checks import check_images
from orchard.nn.sub_pixel import ConvResidual, SubPixelConv, factors_of, radius_of

SLOPE = 0.1  # of the second network's leaky ReLU
STANDARD = 24


@dataclass(frozen=True)
class MSRResNet0Config:
    scale: int = 4
    blocks: int = 16
    width: int = 64

    def __post_init__(self) -> None:
        factors_of(self.scale)


@dataclass(frozen=True)
class MSRResNet1Config:
    scale: int = 4
    blocks: int = 16
    width: int = 64

    def __post_init__(self) -> None:
        factors_of(self.scale)


class NearestConv(nn.Module):
    """(B, C, H, W) → (B, C, rH, rW): every pixel r x r times, then a 3x3 convolution and ReLU."""

    def __init__(self, channels: int, factor: int):
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=self.factor, mode="nearest")).relu()


class MSRResNet0(SuperResolver):
    """RGB (B, 3, h, w) to (B, 3, scale h, scale w), both in [0, 1]; a skip around all blocks, nearest neighbours."""

    def __init__(self, config: MSRResNet0Config):
        super().__init__()
        self.config = c = config
        self.head = nn.Conv2d(3, c.width, 3, padding=1)
        self.blocks = nn.Sequential(*(ConvResidual(c.width, 3, scale=1.0) for _ in range(c.blocks)))
        self.last = nn.Conv2d(c.width, c.width, 3, padding=1)
        self.upsample = nn.Sequential(*(NearestConv(c.width, factor) for factor in factors_of(c.scale)))
        self.detail = nn.Conv2d(c.width, c.width, 3, padding=1)
        self.tail = nn.Conv2d(c.width, 3, 3, padding=1, bias=False)
        initialise(self, 0.5)

    @property
    def scales(self) -> tuple[int, ...]:
        return (self.config.scale,)

    @property
    def receptive_radius(self) -> int:
        reach = 2  # detail, tail
        for factor in factors_of(self.config.scale):
            reach = -(-(reach + 1) // factor)  # the convolution stands behind the enlargement
        return 2 + 2 * self.config.blocks + reach

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, 3)
        x = self.head(images)
        x = self.upsample(x + self.last(self.blocks(x)))
        result: Tensor = self.tail(self.detail(x).relu())
        return result

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        blocks = [(f"blocks.{n}.",) for n in range(self.config.blocks)]
        return [("head.",), *blocks, ("last.", "upsample."), ("detail.", "tail.")]


class MSRResNet1(SuperResolver):
    """RGB (B, 3, h, w) to (B, 3, scale h, scale w), both in [0, 1]; what is added to bilinear enlargement."""

    def __init__(self, config: MSRResNet1Config):
        super().__init__()
        self.config = c = config
        self.head = nn.Conv2d(3, c.width, 3, padding=1)
        self.blocks = nn.Sequential(*(ConvResidual(c.width, 3, scale=1.0) for _ in range(c.blocks)))
        self.upsample = nn.ModuleList(SubPixelConv(c.width, factor, bias=True) for factor in factors_of(c.scale))
        self.detail = nn.Conv2d(c.width, c.width, 3, padding=1)
        self.tail = nn.Conv2d(c.width, 3, 3, padding=1)
        initialise(self, 0.1)  # section 3.1 of ESRGAN: smaller initialisation

    @property
    def scales(self) -> tuple[int, ...]:
        return (self.config.scale,)

    @property
    def receptive_radius(self) -> int:
        return radius_of(1 + 2 * self.config.blocks, factors_of(self.config.scale), 2)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, 3)
        x = self.blocks(F.leaky_relu(self.head(images), SLOPE))
        for enlarge in self.upsample:
            x = F.leaky_relu(enlarge(x), SLOPE)
        found = self.tail(F.leaky_relu(self.detail(x), SLOPE))
        scale = float(self.config.scale)
        return found + F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        blocks = [(f"blocks.{n}.",) for n in range(self.config.blocks)]
        return [("head.",), *blocks, ("upsample.",), ("detail.", "tail.")]


def initialise(model: nn.Module, factor: float) -> None:
    """He's normal weights for ReLU times a factor, and no bias."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight)
            module.weight.data.mul_(factor)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(config: MSRResNet0Config | MSRResNet1Config) -> SuperResolver:
    """The network that a configuration is of."""
    return MSRResNet0(config) if isinstance(config, MSRResNet0Config) else MSRResNet1(config)


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"images": example_at(3, STANDARD, STANDARD, count, generator)}


def kair_names(config: MSRResNet0Config | MSRResNet1Config) -> list[tuple[str, str]]:
    """The names of cszn/KAIR."""
    factors = factors_of(config.scale)
    if isinstance(config, MSRResNet1Config):
        return [
            ("head.{}", "conv_first.{}"),
            ("blocks.{}.{}", "recon_trunk.{}.{}"),
            *((f"upsample.{n}.conv.{{}}", f"upconv{n + 1}.{{}}") for n, _ in enumerate(factors)),
            ("detail.{}", "HRconv.{}"),
            ("tail.{}", "conv_last.{}"),
        ]
    after = 2 + 3 * len(factors)  # each step counts three: pixels repeated, convolution, ReLU
    return [
        ("head.{}", "model.0.{}"),
        ("blocks.{}.conv1.{}", "model.1.sub.{}.res.0.{}"),
        ("blocks.{}.conv2.{}", "model.1.sub.{}.res.2.{}"),
        ("last.{}", f"model.1.sub.{config.blocks}.{{}}"),
        *((f"upsample.{n}.conv.{{}}", f"model.{3 + 3 * n}.{{}}") for n, _ in enumerate(factors)),
        ("detail.{}", f"model.{after}.{{}}"),
        ("tail.{}", f"model.{after + 2}.{{}}"),
    ]


VARIANTS: dict[str, MSRResNet0Config | MSRResNet1Config] = {
    "msrresnet_nano": MSRResNet1Config(blocks=4, width=24),
    **{f"msrresnet0_x{scale}": MSRResNet0Config(scale=scale) for scale in (2, 3, 4)},
    **{f"msrresnet1_x{scale}": MSRResNet1Config(scale=scale) for scale in (2, 3, 4)},
}
LANDMARK = Landmark(model=build, variants=VARIANTS, names={"kair": kair_names}, example=example)
