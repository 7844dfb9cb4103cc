"""WGAN-GP: a critic held to slopes of one, for CIFAR-10 (Gulrajani et al. 2017, arXiv:1704.00028).

The critic's scores, on average larger for real images, estimate a Wasserstein distance as long as its gradient has norm
one between real and generated images. That penalty is on each sample's own gradient, so the critic has no batch norm,
which would let samples see each other (section 4). These are the networks of DCGAN's shape; the paper's residual ones
are in wgan_gp_resnet.py. Legend: B images, C channels, S pixels a side, s the side of the smallest map, W channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation import tensorflow_names as tensorflow
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR, AdversarialPair, example_noise
from orchard.nn.checks import check_images
from orchard.nn.conv import glorot_uniform


@dataclass(frozen=True)
class WGANGPConfig:
    image_size: int = 32
    in_channels: int = 3
    noise: int = 128
    prior: Literal["normal", "uniform"] = "normal"
    levels: int = 3  # times that the generator doubles the side, and the critic halves it
    width: int = 128  # channels at half the image's side; twice as many at each smaller side
    kernel: int = 5  # of the critic's convolutions
    before: int = 1  # pixels that they pad above and to the left; below and to the right: kernel - 2 - before
    generator_kernel: int = 5
    generator_before: int = 1
    slope: float = 0.2  # of the critic's leaky ReLU

    def __post_init__(self) -> None:
        if self.image_size % 2**self.levels:
            raise ValueError(f"an image of {self.image_size} pixels is not halved evenly {self.levels} times")
        for kernel, before in ((self.kernel, self.before), (self.generator_kernel, self.generator_before)):
            if not 0 <= before <= kernel - 2:
                raise ValueError(f"a kernel of {kernel} pads 0 to {kernel - 2} pixels before, got {before}")

    @property
    def side(self) -> int:
        """Pixels a side of the smallest map."""
        return self.image_size // 2**self.levels


class Downsampling(nn.Conv2d):
    """A convolution of stride 2, (B, inputs, 2n, 2n) → (B, outputs, n, n).

    TensorFlow's "same" padding of 5x5 kernels has one pixel before and two after, which no symmetric padding gives.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, before: int):
        super().__init__(inputs, outputs, kernel, stride=2)
        after = kernel - 2 - before
        self.pads = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pads))


class Upsampling(nn.ConvTranspose2d):
    """The transpose of `Downsampling`, (B, inputs, n, n) → (B, outputs, 2n, 2n)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, before: int):
        super().__init__(inputs, outputs, kernel, stride=2)
        self.before = before

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        n = self.before
        return super().forward(x, output_size)[:, :, n : n + height, n : n + width]


class Generator(nn.Module):
    """Noise (B, noise) → images (B, C, S, S) in [-1, 1]."""

    def __init__(self, c: WGANGPConfig):
        super().__init__()
        widths = [c.width * 2**n for n in reversed(range(c.levels))]
        self.start = (widths[0], c.side, c.side)
        units = widths[0] * c.side**2
        self.project = nn.Sequential(
            glorot_uniform(nn.Linear(c.noise, units), gain=1), nn.BatchNorm1d(units), nn.ReLU(inplace=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                glorot_uniform(Upsampling(inputs, outputs, c.generator_kernel, c.generator_before), gain=2),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            )
            for inputs, outputs in pairwise(widths)
        )
        to_image = Upsampling(widths[-1], c.in_channels, c.generator_kernel, c.generator_before)
        self.to_image = glorot_uniform(to_image, gain=2)

    def forward(self, noise: Tensor) -> Tensor:
        x = self.project(noise).unflatten(1, self.start)
        for block in self.blocks:
            x = block(x)
        return self.to_image(x).tanh()


class Critic(nn.Module):
    """Images (B, C, S, S) → scores (B,), without any norm."""

    def __init__(self, c: WGANGPConfig):
        super().__init__()
        self.config = c
        widths = [c.width * 2**n for n in range(c.levels)]
        self.convs = nn.ModuleList(
            glorot_uniform(Downsampling(inputs, outputs, c.kernel, c.before), gain=2)
            for inputs, outputs in pairwise([c.in_channels, *widths])
        )
        self.score = glorot_uniform(nn.Linear(widths[-1] * c.side**2, 1), gain=1)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        x = images
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.config.slope)
        scores: Tensor = self.score(x.flatten(1))
        return scores.flatten()


class WGANGP(AdversarialPair):
    """Noise (B, noise) to images (B, C, S, S) in [-1, 1], and images to scores (B,)."""

    objective = "wgan-gp"

    def __init__(self, config: WGANGPConfig):
        super().__init__(config, Generator(config), Critic(config))


VARIANTS = {
    "wgan_gp": WGANGPConfig(),
    "wgan_gp_nano": WGANGPConfig(
        image_size=28, in_channels=1, noise=64, levels=2, width=16, kernel=4, generator_kernel=4
    ),
}


def pytorch_names(config: WGANGPConfig) -> list[tuple[str, str]]:
    """The names of caogang/wgan-gp (gan_cifar10.py)."""
    return [
        ("generator.project.{}", f"{GENERATOR}preprocess.{{}}"),
        *((f"generator.blocks.{n}.{{}}", f"{GENERATOR}block{n + 1}.{{}}") for n in range(config.levels - 1)),
        ("generator.to_image.{}", f"{GENERATOR}deconv_out.{{}}"),
        # each convolution is followed by its leaky ReLU
        *((f"discriminator.convs.{n}.{{}}", f"{DISCRIMINATOR}main.{2 * n}.{{}}") for n in range(config.levels)),
        ("discriminator.score.{}", f"{DISCRIMINATOR}linear.{{}}"),
    ]


def tensorflow_names(config: WGANGPConfig) -> tensorflow.Rows:
    """The variables of improved_wgan_training (gan_cifar.py). Its first batch norm has no running averages."""
    count = config.levels
    rows = [
        *tensorflow.linear("generator.project.0", "Generator.Input"),
        *tensorflow.unit_norm("generator.project.1", "Generator.BN1"),
        *tensorflow.conv("generator.to_image", f"Generator.{count + 2}"),
        *tensorflow.linear("discriminator.score", "Discriminator.Output"),
    ]
    for n in range(count - 1):
        rows += tensorflow.conv(f"generator.blocks.{n}.0", f"Generator.{n + 2}")
        rows += tensorflow.norm(f"generator.blocks.{n}.1", f"Generator.BN{n + 2}")
    for n in range(count):
        rows += tensorflow.conv(f"discriminator.convs.{n}", f"Discriminator.{n + 1}")
    return rows


LANDMARK = Landmark(
    model=WGANGP,
    variants=VARIANTS,
    names={"pytorch": pytorch_names, "tensorflow": tensorflow_names},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise,
)
