"""What every network that translates images offers to its task, its exports and its tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from orchard.nn.checks import check_images

Direction = Literal["AtoB", "BtoA"]


@dataclass(frozen=True)
class Attended:
    """What a generator that attends gives.

    images: (B, C, H, W), of the other side;
    logits: (B, n), of its auxiliary classifiers: is what it was given of the side that it translates?
    heat: (B, 1, h, w), where it looked, larger for more.
    """

    images: Tensor
    logits: Tensor
    heat: Tensor


class ImageTranslator(nn.Module, ABC):
    """Images of one side, (B, C, H, W), to images of the other of the same size, both in `value_range`.

    One that learns from pairs has a `generator` of one direction, and a `discriminator` of what goes in and what comes
    out, one behind the other, (B, C + C', H, W) → scores (B, 1, h, w), larger for real. One that learns without pairs
    has `generators`, by direction, and `discriminators` of the images of side "A" and of side "B". One that attends has
    `attend(images, direction)` → `Attended` too, as its generators have `attend(images)`; several discriminators of a
    side, which all answer when that side's is called; and `settle()`, which training calls after each update of the
    generators.
    """

    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    config: Any  # with `image_size`, that of the images that it learns from

    @property
    def fixed_size(self) -> bool:
        """Does the network take squares of `config.image_size` alone?"""
        return False

    @property
    @abstractmethod
    def multiple(self) -> int:
        """The sides of images are multiples of this number of pixels."""

    @abstractmethod
    def channels(self, side: str) -> int:
        """Channels of the images of side "A" or "B"."""

    @property
    @abstractmethod
    def directions(self) -> tuple[Direction, ...]:
        """Those that `translate` knows: one of what learns from pairs, and A is then what it is given."""

    @abstractmethod
    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Images (B, C, H, W) of the other side, with a gradient; ValueError for what does not fit."""

    def check(self, images: Tensor, channels: int) -> None:
        """ValueError for images that the network does not take."""
        size = self.config.image_size
        check_images(images, channels, (size, size) if self.fixed_size else None, least=self.multiple)
        if any(side % self.multiple for side in images.shape[2:]):
            raise ValueError(f"expected sides that are multiples of {self.multiple}, got {tuple(images.shape)}")


def check_sizes(image_size: int, multiple: int, discriminator_layers: int) -> None:
    """ValueError for images that the networks cannot learn from."""
    if image_size % multiple or image_size < multiple:
        raise ValueError(f"image_size is {image_size}, expected a multiple of {multiple}")
    if discriminator_layers < 1:
        raise ValueError(f"discriminator_layers is {discriminator_layers}, expected 1 or more")
    least = 3 * 2**discriminator_layers  # each of the two last convolutions takes a pixel away
    if image_size < least:
        raise ValueError(
            f"image_size is {image_size}; a patch discriminator with {discriminator_layers} layers needs {least} "
            "pixels a side: enlarge it, or set fewer discriminator_layers"
        )


def example_of_both_sides(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Arguments of `forward` of a network that learns both directions."""
    shape = (count, config.in_channels, config.image_size, config.image_size)
    return {side: torch.randn(shape, generator=generator) for side in ("a", "b")}
