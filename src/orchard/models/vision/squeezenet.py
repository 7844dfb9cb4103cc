"""SqueezeNet: AlexNet-level accuracy with 50x fewer parameters (Iandola et al. 2016, arXiv:1602.07360).

Table 1 of the paper: a convolution, eight fire modules with three pools between them, and a 1x1 convolution that gives
one map for each class. `squeezenet1_1` is the authors' later version: a smaller first convolution and earlier pools.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images


@dataclass(frozen=True)
class SqueezeNetConfig:
    stem: int = 96
    stem_kernel: int = 7
    squeezes: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)  # table 1, s1x1: what a fire module narrows to
    expands: tuple[int, ...] = (64, 64, 128, 128, 192, 192, 256, 256)  # e1x1 and e3x3: channels of each half of it
    pools: tuple[int, ...] = (0, 3, 7)  # before which fire modules there is a pool
    dropout: float = 0.5
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the last pool."""
        side = 1
        for _ in self.pools:
            side = 2 * side - 1 if side > 1 else 2  # pools of 3 by 2 that may end outside the map
        return 2 * max(side, 2) - 2 + self.stem_kernel

    def __post_init__(self) -> None:
        if len(self.squeezes) != len(self.expands):
            raise ValueError("squeezes and expands name the same fire modules, one number each")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")
