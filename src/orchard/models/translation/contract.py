"""What every network that translates images offers to its task, its exports and its tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from orchard.nn.checks import check_images

Direction = Literal["AtoB", "BtoA"]


class ImageTranslator(nn.Module, ABC):
    """Images of one side, (B, C, H, W), to images of the other of the same size, both in `value_range`.

    One that learns from pairs has a `generator` of one direction, and a `discriminator` of what goes in and what comes
    out, one behind the other, (B, C + C', H, W) → scores (B, 1, h, w), larger for real. One that learns without pairs
    has `generators`, by direction, and `discriminators` of the images of side "A" and of side "B".
    """

    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    config: Any  # with `image_size`, that of the images that it learns from

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
        check_images(images, channels, least=self.multiple)
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
