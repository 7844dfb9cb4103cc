"""What adversarial pairs that grow share: the sides they work at, and the discriminator.

Karras et al. 2017 (arXiv:1710.10196): both networks begin with images of few pixels, and are given layers for twice the
side one after another. All layers are there from the start; a level says which of them work. Legend: B images, C
channels, W channels of a map, s pixels of the side at a level.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models.generation.pair import AdversarialPair
from orchard.nn.checks import check_images
from orchard.nn.equalised import EqualisedConv2d
from orchard.nn.growth import Growth

SLOPE = 0.2  # of the leaky rectifiers
RECTIFIER_GAIN = 2**0.5  # that makes up for them, in the weights before


def check_widths(image_size: int, widths: tuple[int, ...]) -> None:
    """ValueError where an image is not halved evenly down to the smallest map."""
    times = len(widths) - 1
    if times < 1:
        raise ValueError(f"widths has 2 numbers or more, got {len(widths)}")
    if image_size % 2**times:
        raise ValueError(f"an image of {image_size} pixels is not halved evenly {times} times")


def sides_of(config: Any) -> tuple[int, ...]:
    """Pixels a side at every level."""
    levels = len(config.widths)
    return tuple(config.image_size // 2 ** (levels - 1 - n) for n in range(levels))


def rectify(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def enlarged(x: Tensor) -> Tensor:
    """Twice the side, every pixel four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def halved(x: Tensor) -> Tensor:
    """Half the side, each pixel the mean of four."""
    return F.avg_pool2d(x, 2)


class GrowingDiscriminator(nn.Module):
    """Images (B, C, s, s) of the side at its level → scores (B,).

    Args:
        from_image: makes what an image of each level comes in through, given that level's W.
        halving: makes the second convolution of a level, given W before and after it, which halves the side too.
        differences: adds what tells how alike the images are, (B, W, s, s) → (B, W + 1, s, s).
        score: (B, W) → (B, 1 or more), the first of which is the score.
        widen_first: whether the first convolution of a level widens, as in rosinality's ports, or the second.
    """

    def __init__(
        self, config: Any, *, from_image: Callable[[int], nn.Module], halving: Callable[[int, int], nn.Module],
        differences: nn.Module, score: nn.Module, widen_first: bool,
    ):  # fmt: skip
        super().__init__()
        widths, sides = config.widths, sides_of(config)
        self.channels, self.sides = config.in_channels, sides
        self.growth = Growth(len(widths))
        self.from_image = nn.ModuleList(from_image(width) for width in widths)
        self.convs1, self.convs2 = nn.ModuleList(), nn.ModuleList()
        self.convs1.append(conv(widths[0] + 1, widths[0], 3, padding=1))
        self.convs2.append(conv(widths[0], widths[0], sides[0]))
        for smaller, larger in pairwise(widths):
            middle = smaller if widen_first else larger
            self.convs1.append(conv(larger, middle, 3, padding=1))
            self.convs2.append(halving(middle, smaller))
        self.differences = differences
        self.score = score

    def outputs(self, images: Tensor) -> Tensor:
        """What `score` gives for images."""
        level, side = self.growth.level, self.sides[self.growth.level]
        check_images(images, self.channels, (side, side))
        x = self.from_image[level](images)
        for n in range(level, 0, -1):
            x = self.convs2[n](rectify(self.convs1[n](x)))
            if n == level and self.growth.fading:
                x = torch.lerp(self.from_image[n - 1](halved(images)), x, self.growth.alpha)
        x = self.compare(x, images)
        x = rectify(self.convs2[0](rectify(self.convs1[0](x))))
        found: Tensor = self.score(x.flatten(1))
        return found

    def compare(self, x: Tensor, images: Tensor) -> Tensor:
        """The maps (B, W, s, s) of a batch of images with how alike they are."""
        found: Tensor = self.differences(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images)[:, 0]


def conv(inputs: int, outputs: int, kernel: int, *, padding: int = 0) -> EqualisedConv2d:
    """A convolution before a rectifier."""
    return EqualisedConv2d(inputs, outputs, kernel, padding=padding, gain=RECTIFIER_GAIN)


class GrowingPair(AdversarialPair):
    """Noise (B, noise) to images (B, C, s, s), and those to scores (B,); s is image_size once the pair is finished."""

    @property
    def sides(self) -> tuple[int, ...]:
        """Pixels a side at every level, the last of which is image_size."""
        return sides_of(self.config)

    @property
    def level(self) -> int:
        return self.parts_that_grow()[0].level

    @property
    def alpha(self) -> float:
        """The share of the level in its images; the rest is that of the level before."""
        return self.parts_that_grow()[0].alpha

    def grow_to(self, level: int, alpha: float) -> None:
        """Work at a level, mixed with the one before. ValueError for what there is not."""
        for part in self.parts_that_grow():
            part.set(level, alpha)

    def read_growth(self) -> None:
        """Take over the level and alpha of the buffers, where an average of the weights wrote into them."""
        for part in self.parts_that_grow():
            part.read()

    def parts_that_grow(self) -> list[Growth]:
        found = [self.generator.growth, self.discriminator.growth]
        return [part for part in found if isinstance(part, Growth)]


def mixed(new: Tensor, old: Tensor, growth: Growth) -> Tensor:
    """The image of a level and that of the level before, of half the side, by the share of the new one."""
    return torch.lerp(enlarged(old), new, growth.alpha)
