"""Feature pyramids: maps of several resolutions that all know what the deepest does (arXiv:1612.03144)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Maps of a trunk, finest first, (B, channels, H, W) each, to as many of one width and one more (section 3).

    From the deepest map down, each is a 1x1 convolution of the trunk's plus the coarser map, enlarged; a 3x3
    convolution of each goes out. The level that is added takes every second cell of the deepest. `norm` makes the norm
    behind every convolution; without one the convolutions have a bias.
    """

    def __init__(self, channels: Sequence[int], width: int, norm: Callable[[int], nn.Module] | None):
        super().__init__()
        self.lateral = nn.ModuleList(pyramid_convolution(inputs, width, 1, norm) for inputs in channels)
        self.output = nn.ModuleList(pyramid_convolution(width, width, 3, norm) for _ in channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        top = self.lateral[-1](maps[-1])
        levels = [self.output[-1](top)]
        for n in range(len(maps) - 2, -1, -1):
            side = self.lateral[n](maps[n])
            top = side + F.interpolate(top, size=side.shape[-2:], mode="nearest")
            levels.insert(0, self.output[n](top))
        return [*levels, levels[-1][:, :, ::2, ::2]]


def pyramid_convolution(
    inputs: int, outputs: int, kernel: int, norm: Callable[[int], nn.Module] | None
) -> nn.Sequential:
    """A convolution that keeps the size, with the norm that `norm` makes or with a bias."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=norm is None)
    return nn.Sequential(convolution) if norm is None else nn.Sequential(convolution, norm(outputs))
