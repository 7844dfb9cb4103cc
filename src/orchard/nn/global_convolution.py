"""Convolutions with very large kernels, and the pyramid made of them, whose levels all have the size of one map.

Peng et al. 2017 (arXiv:1703.02719, section 3.1): a k x k kernel as the sum of two pairs of one-dimensional ones. FPT's
unscathed feature pyramid (Zhang et al. 2020, arXiv:2007.09451, section 3.5) has one of each size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class GlobalConvolution(nn.Module):
    """Maps (B, inputs, H, W) to (B, outputs, H, W): a column then a row of `kernel` cells, plus a row then a column."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"expected odd kernels of at least 1, got {kernel}")
        column, row = (kernel, 1), (1, kernel)
        self.first = nn.Sequential(_line(inputs, outputs, column), _line(outputs, outputs, row))
        self.second = nn.Sequential(_line(inputs, outputs, row), _line(outputs, outputs, column))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)  # type: ignore[no-any-return]


def _line(inputs: int, outputs: int, kernel: tuple[int, int]) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
    nn.init.kaiming_uniform_(layer.weight, a=1)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class UnscathedPyramid(nn.Module):
    """A list of one map, (B, inputs, H, W), to a level of the same size for each kernel, (B, width, H, W)."""

    def __init__(self, inputs: int, width: int, kernels: Sequence[int]):
        super().__init__()
        self.levels = nn.ModuleList(GlobalConvolution(inputs, width, kernel) for kernel in kernels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        (x,) = maps
        return [level(x) for level in self.levels]
