"""SRResNet: a deep residual network for super-resolution, the generator of SRGAN (Ledig et al. 2016, arXiv:1609.04802).

A 9x9 convolution, residual blocks with norms, one skip around them all, sub-pixel convolutions, a 9x9 convolution
(figure 4). One PReLU has one slope, which is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.restoration.contract import SuperResolver, example_at
from orchard.nn.checks import check_images
from orchard.nn.sub_pixel import SubPixelConv, factors_of, radius_of

SLOPE = 0.2  # of the leaky ReLU that ports have in place of PReLU
STANDARD = 24  # pixels a side of the training patches at low resolution (section 3.2: 96 at high resolution)


@dataclass(frozen=True)
class SRResNetConfig:
    scale: int = 4
    blocks: int = 16
    width: int = 64
    norm: Literal["batch", "instance"] = "batch"
    activation: Literal["prelu", "leaky"] = "prelu"
    bias: bool = True
    output: Literal["linear", "tanh"] = "linear"  # tanh: brought to [0, 1] as (tanh + 1) / 2

    def __post_init__(self) -> None:
        factors_of(self.scale)


def norm_of(c: SRResNetConfig) -> nn.Module:
    return nn.BatchNorm2d(c.width) if c.norm == "batch" else nn.InstanceNorm2d(c.width, affine=True)


def activation_of(c: SRResNetConfig) -> nn.Module:
    return nn.PReLU() if c.activation == "prelu" else nn.LeakyReLU(SLOPE)


class Block(nn.Module):
    """Convolution, norm, activation, convolution, norm, added to what came in."""

    def __init__(self, c: SRResNetConfig):
        super().__init__()
        self.conv1 = nn.Conv2d(c.width, c.width, 3, padding=1, bias=c.bias)
        self.norm1 = norm_of(c)
        self.activation = activation_of(c)
        self.conv2 = nn.Conv2d(c.width, c.width, 3, padding=1, bias=c.bias)
        self.norm2 = norm_of(c)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.activation(self.norm1(self.conv1(x)))
        result: Tensor = x + self.norm2(self.conv2(inner))
        return result


class SRResNet(SuperResolver):
    """RGB (B, 3, h, w) to (B, 3, scale h, scale w), both in [0, 1]."""

    def __init__(self, config: SRResNetConfig):
        super().__init__()
        self.config = c = config
        self.head = nn.Conv2d(3, c.width, 9, padding=4, bias=c.bias)
        self.head_activation = activation_of(c)
        self.blocks = nn.Sequential(*(Block(c) for _ in range(c.blocks)))
        self.last = nn.Conv2d(c.width, c.width, 3, padding=1, bias=c.bias)
        self.last_norm = norm_of(c)
        factors = factors_of(c.scale)
        self.upsample = nn.ModuleList(SubPixelConv(c.width, factor, bias=c.bias) for factor in factors)
        self.upsample_activations = nn.ModuleList(activation_of(c) for _ in factors)
        self.tail = nn.Conv2d(c.width, 3, 9, padding=4, bias=c.bias)

    @property
    def scales(self) -> tuple[int, ...]:
        return (self.config.scale,)

    @property
    def receptive_radius(self) -> int | None:
        """None with instance norm, whose statistics are those of the whole image."""
        if self.config.norm == "instance":
            return None
        return radius_of(4 + 2 * self.config.blocks + 1, factors_of(self.config.scale), 4)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, 3)
        x = self.head_activation(self.head(images))
        x = x + self.last_norm(self.last(self.blocks(x)))
        for enlarge, activate in zip(self.upsample, self.upsample_activations, strict=True):
            x = activate(enlarge(x))
        x = self.tail(x)
        return (x.tanh() + 1) / 2 if self.config.output == "tanh" else x

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        blocks = [(f"blocks.{n}.",) for n in range(self.config.blocks)]
        return [
            ("head.", "head_activation."),
            *blocks,
            ("last.", "last_norm.", "upsample.", "upsample_activations."),
            ("tail.",),
        ]


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"images": example_at(3, STANDARD, STANDARD, count, generator)}


def srgan_names(config: SRResNetConfig) -> list[tuple[str, str]]:
    """The names of leftthomas/SRGAN, whose blocks are numbered from 1: the head, the residual blocks, what follows."""
    blocks, after = config.blocks, config.blocks + 2
    stages = len(factors_of(config.scale))
    inside = [("conv1", "conv1"), ("norm1", "bn1"), ("activation", "prelu"), ("conv2", "conv2"), ("norm2", "bn2")]
    return [
        ("head.{}", "block1.0.{}"),
        ("head_activation.{}", "block1.1.{}"),
        *((f"blocks.{n}.{ours}.{{}}", f"block{n + 2}.{theirs}.{{}}") for n in range(blocks) for ours, theirs in inside),
        ("last.{}", f"block{after}.0.{{}}"),
        ("last_norm.{}", f"block{after}.1.{{}}"),
        ("upsample.{}.conv.{}", f"block{after + 1}.{{}}.conv.{{}}"),
        ("upsample_activations.{}.{}", f"block{after + 1}.{{}}.prelu.{{}}"),
        ("tail.{}", f"block{after + 1}.{stages}.{{}}"),
    ]


def pytorch_names(config: SRResNetConfig) -> list[tuple[str, str]]:
    """The names of twtygqyy/pytorch-SRResNet, which enlarges four times and has no PReLU."""
    return [
        ("head.{}", "conv_input.{}"),
        ("blocks.{}.conv1.{}", "residual.{}.conv1.{}"),
        ("blocks.{}.norm1.{}", "residual.{}.in1.{}"),
        ("blocks.{}.conv2.{}", "residual.{}.conv2.{}"),
        ("blocks.{}.norm2.{}", "residual.{}.in2.{}"),
        ("last.{}", "conv_mid.{}"),
        ("last_norm.{}", "bn_mid.{}"),
        *((f"upsample.{n}.conv.{{}}", f"upscale4x.{3 * n}.{{}}") for n, _ in enumerate(factors_of(config.scale))),
        ("tail.{}", "conv_output.{}"),
    ]


VARIANTS = {
    "srresnet_nano": SRResNetConfig(blocks=4, width=24),
    **{f"srresnet_x{scale}": SRResNetConfig(scale=scale) for scale in (2, 3, 4)},
}
LANDMARK = Landmark(
    model=SRResNet, variants=VARIANTS, names={"srgan": srgan_names, "pytorch": pytorch_names}, example=example
)
