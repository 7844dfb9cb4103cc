"""The residual pairs of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028, appendix F and the authors' code).

For CIFAR-10 and for 64 pixels. Blocks with the norm and the ReLU before each convolution. The generator has batch
norm; the critic of CIFAR-10 has no norm, that of 64 pixels layer norm over a sample's channels and pixels (section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation import tensorflow_names as tensorflow
from orchard.models.generation.pair import AdversarialPair, example_noise
from orchard.nn.checks import check_images
from orchard.nn.conv import glorot_uniform

Norm = Callable[[int], nn.Module]  # of so many channels
layer_norm: Norm = partial(nn.GroupNorm, 1)  # one group: mean and variance of all that a sample has


@dataclass(frozen=True)
class WGANGPResNetConfig:
    generator_widths: tuple[int, ...]  # channels of the first map, and after each doubling of its side
    critic: Literal["pooled", "layer norm"]  # of CIFAR-10, or of 64 pixels
    critic_widths: tuple[int, ...]  # channels after each of its blocks; of "layer norm", of its first convolution too
    image_size: int = 32
    in_channels: int = 3
    noise: int = 128
    prior: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        halvings = 2 if self.critic == "pooled" else len(self.critic_widths) - 1
        for times in (len(self.generator_widths) - 1, halvings):
            if self.image_size % 2**times:
                raise ValueError(f"an image of {self.image_size} pixels is not halved evenly {times} times")


def conv3(inputs: int, outputs: int, *, bias: bool, gain: float = 2.0) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return glorot_uniform(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), gain)


class ResidualBlock(nn.Module):
    """shortcut(x) + F(x), (B, inputs, n, n) → (B, outputs, m, m).

    `resample` is "up" (m = 2n, before the first convolution), "down" (m = n / 2, after the second) or "" (m = n).
    """

    def __init__(self, inputs: int, outputs: int, resample: str, norm: Norm, *, bias: bool):
        super().__init__()
        up = nn.Upsample(scale_factor=2) if resample == "up" else nn.Identity()
        down = nn.AvgPool2d(2) if resample == "down" else nn.Identity()
        inner = outputs if resample == "up" else inputs
        self.norm1 = norm(inputs)
        self.up = up
        self.conv1 = conv3(inputs, inner, bias=bias)
        self.norm2 = norm(inner)
        self.conv2 = conv3(inner, outputs, bias=True)
        self.down = down
        self.shortcut: nn.Module = nn.Identity()
        if resample or inputs != outputs:
            # A 1x1 convolution may change places with either change of side: it is cheapest where the side is small.
            self.shortcut = nn.Sequential(down, glorot_uniform(nn.Conv2d(inputs, outputs, 1), gain=1), up)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.up(F.relu(self.norm1(x))))
        out = self.down(self.conv2(F.relu(self.norm2(out))))
        return self.shortcut(x) + out


class ImageBlock(nn.Module):
    """The first block of the critic of CIFAR-10: no ReLU before its first convolution, and the side halved."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv1 = conv3(channels, width, bias=True)
        self.conv2 = conv3(width, width, bias=True)
        self.shortcut = glorot_uniform(nn.Conv2d(channels, width, 1), gain=1)

    def forward(self, images: Tensor) -> Tensor:
        out = F.avg_pool2d(self.conv2(F.relu(self.conv1(images))), 2)
        return self.shortcut(F.avg_pool2d(images, 2)) + out


class ResNetGenerator(nn.Module):
    """Noise (B, noise) → images (B, C, S, S) in [-1, 1]."""

    def __init__(self, c: WGANGPResNetConfig):
        super().__init__()
        first, *_, last = widths = c.generator_widths
        side = c.image_size // 2 ** (len(widths) - 1)
        self.start = (first, side, side)
        self.project = glorot_uniform(nn.Linear(c.noise, first * side**2), gain=1)
        bias = c.critic == "pooled"  # with 64 pixels, what a norm follows has none
        self.blocks = nn.Sequential(
            *(ResidualBlock(inputs, outputs, "up", nn.BatchNorm2d, bias=bias) for inputs, outputs in pairwise(widths))
        )
        self.norm = nn.BatchNorm2d(last)
        self.to_image = conv3(last, c.in_channels, bias=True, gain=1)

    def forward(self, noise: Tensor) -> Tensor:
        x = self.blocks(self.project(noise).unflatten(1, self.start))
        images: Tensor = self.to_image(F.relu(self.norm(x)))
        return images.tanh()


class PooledCritic(nn.Module):
    """Images (B, C, S, S) → scores (B,): two blocks that halve the side, blocks that keep it, the mean of every map."""

    def __init__(self, c: WGANGPResNetConfig):
        super().__init__()
        self.config = c
        widths = c.critic_widths
        blocks: list[nn.Module] = [ImageBlock(c.in_channels, widths[0])]
        for n, (inputs, outputs) in enumerate(pairwise(widths)):
            blocks.append(ResidualBlock(inputs, outputs, "down" if n == 0 else "", nn.Identity, bias=True))
        self.blocks = nn.Sequential(*blocks)
        self.score = glorot_uniform(nn.Linear(widths[-1], 1), gain=1)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        scores: Tensor = self.score(F.relu(self.blocks(images)).mean((2, 3)))
        return scores.flatten()


class LayerNormCritic(nn.Module):
    """Images (B, C, S, S) → scores (B,): a convolution, then blocks that halve the side down to the smallest map."""

    def __init__(self, c: WGANGPResNetConfig):
        super().__init__()
        self.config = c
        widths = c.critic_widths
        side = c.image_size // 2 ** (len(widths) - 1)
        self.from_image = conv3(c.in_channels, widths[0], bias=True, gain=1)
        self.blocks = nn.Sequential(
            *(ResidualBlock(inputs, outputs, "down", layer_norm, bias=False) for inputs, outputs in pairwise(widths))
        )
        self.score = glorot_uniform(nn.Linear(widths[-1] * side**2, 1), gain=1)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        scores: Tensor = self.score(self.blocks(self.from_image(images)).flatten(1))
        return scores.flatten()


class WGANGPResNet(AdversarialPair):
    """Noise (B, noise) to images (B, C, S, S) in [-1, 1], and images to scores (B,)."""

    objective = "wgan-gp"

    def __init__(self, config: WGANGPResNetConfig):
        critic = PooledCritic(config) if config.critic == "pooled" else LayerNormCritic(config)
        super().__init__(config, ResNetGenerator(config), critic)


VARIANTS = {
    "wgan_gp_resnet": WGANGPResNetConfig((128, 128, 128, 128), "pooled", (128, 128, 128, 128)),
    "wgan_gp_resnet64": WGANGPResNetConfig(
        (512, 512, 256, 128, 64), "layer norm", (64, 128, 256, 512, 512), image_size=64
    ),
    "wgan_gp_resnet_nano": WGANGPResNetConfig((32, 32, 32), "layer norm", (16, 32, 32), image_size=28, in_channels=1),
}


def tensorflow_names(config: WGANGPResNetConfig) -> tensorflow.Rows:
    """The variables of improved_wgan_training: of gan_cifar_resnet.py, or, with layer norm, of gan_64x64.py."""
    pooled = config.critic == "pooled"
    block, norm = ("", "N") if pooled else ("Res", "BN")
    rows = [
        *tensorflow.linear("generator.project", "Generator.Input"),
        *tensorflow.norm("generator.norm", "Generator.OutputN"),
        *tensorflow.conv("generator.to_image", "Generator.Output"),
        *tensorflow.conv("discriminator.from_image", "Discriminator.Input"),
        *tensorflow.linear("discriminator.score", "Discriminator.Output"),
    ]
    for side, count in (("generator", len(config.generator_widths)), ("discriminator", len(config.critic_widths))):
        for n in range(count):
            ours, theirs = f"{side}.blocks.{n}", f"{side.capitalize()}.{block}{n + 1}"
            image_block = pooled and side == "discriminator" and n == 0
            rows += tensorflow.conv(f"{ours}.shortcut" + ("" if image_block else ".1"), f"{theirs}.Shortcut")
            for k in (1, 2):
                rows += tensorflow.conv(f"{ours}.conv{k}", f"{theirs}.Conv{k}")
                rows += tensorflow.norm(f"{ours}.norm{k}", f"{theirs}.{norm}{k}")
    return rows


LANDMARK = Landmark(
    model=WGANGPResNet,
    variants=VARIANTS,
    names={"tensorflow": tensorflow_names},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise,
)
