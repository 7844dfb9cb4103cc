"""SRCNN: super-resolution by three convolutions (Dong, Loy, He, Tang 2014, arXiv:1501.00092).

An image that was enlarged bicubically is sharpened at its size: patch extraction and representation, non-linear
mapping, reconstruction (section 3.1). It is luma alone; colours stay as they were enlarged (section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.restoration.contract import SuperResolver, example_at
from orchard.nn.checks import check_images

STANDARD = 33  # pixels a side of the training images of section 4


@dataclass(frozen=True)
class SRCNNConfig:
    scale: int = 4  # of the bicubic enlargement that it is trained for
    kernels: tuple[int, int, int] = (9, 1, 5)
    widths: tuple[int, int] = (64, 32)

    def __post_init__(self) -> None:
        if self.scale < 2:
            raise ValueError(f"scale is {self.scale}; expected 2 or more")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels are {self.kernels}; expected odd sizes, which have a middle")


class SRCNN(SuperResolver):
    """Luma (B, 1, H, W) in [0, 1], enlarged bicubically, to luma of the same size."""

    channels = 1
    enlarged = True

    def __init__(self, config: SRCNNConfig):
        super().__init__()
        self.config = config
        (k1, k2, k3), (n1, n2) = config.kernels, config.widths
        self.extract = nn.Conv2d(1, n1, k1, padding=k1 // 2)
        self.map = nn.Conv2d(n1, n2, k2, padding=k2 // 2)
        self.reconstruct = nn.Conv2d(n2, 1, k3, padding=k3 // 2)

    @property
    def scales(self) -> tuple[int, ...]:
        return (self.config.scale,)

    @property
    def receptive_radius(self) -> int:
        return sum(kernel // 2 for kernel in self.config.kernels)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, 1)
        return self.reconstruct(self.map(self.extract(images).relu()).relu())

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("extract.",), ("map.",), ("reconstruct.",)]


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"images": example_at(1, STANDARD, STANDARD, count, generator)}


def pytorch_names(config: SRCNNConfig) -> list[tuple[str, str]]:
    """The names of yjn870/SRCNN-pytorch."""
    return [("extract.{}", "conv1.{}"), ("map.{}", "conv2.{}"), ("reconstruct.{}", "conv3.{}")]


VARIANTS = {
    f"srcnn_{words}_x{scale}": SRCNNConfig(scale=scale, kernels=kernels)
    for words, kernels in (("915", (9, 1, 5)), ("955", (9, 5, 5)))
    for scale in (2, 3, 4)
}
LANDMARK = Landmark(model=SRCNN, variants=VARIANTS, names={"pytorch": pytorch_names}, example=example)
