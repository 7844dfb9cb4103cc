"""The two cells of NASNet-A (Zoph et al. 2017, arXiv:1707.07012, figure 4) and the operations in them."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from orchard.nn.conv_norm import SameConv2d

norm = partial(nn.BatchNorm2d, eps=1e-3)

# Figure 4, row by row: each map is the sum of two operations. Maps 0 and 1 are those that come in, the one before the
# last and the last; 2 to 6 are the rows themselves.
Row = tuple[tuple[str, int], tuple[str, int]]
NORMAL: tuple[Row, ...] = (
    (("separable 5", 1), ("separable 3", 0)),
    (("separable 5", 0), ("separable 3", 0)),
    (("average", 1), ("identity", 0)),
    (("average", 0), ("average", 0)),
    (("separable 3", 1), ("identity", 1)),
)
REDUCTION: tuple[Row, ...] = (
    (("separable 5", 1), ("separable 7", 0)),
    (("maximum", 1), ("separable 7", 0)),
    (("average", 1), ("separable 5", 0)),
    (("average", 2), ("identity", 3)),
    (("separable 3", 2), ("maximum", 1)),
)
SIDES = ("left", "right")
JOINED = {NORMAL: (0, 2, 3, 4, 5, 6), REDUCTION: (3, 4, 5, 6)}  # the maps that no row uses leave side by side


class Pool(nn.Module):
    """Mean or maximum of 3x3, (B, C, H, W) → (B, C, ceil(H / stride), ...), padded SAME; padding counts for nothing."""

    def __init__(self, kind: str, stride: int):
        super().__init__()
        self.kind, self.stride = kind, stride

    def forward(self, x: Tensor) -> Tensor:
        # At a stride of two, SAME pads an odd side at both ends and an even one at the far end, where ceil_mode is.
        padding = 1 if self.stride == 1 else (x.shape[2] % 2, x.shape[3] % 2)
        if self.kind == "maximum":
            return F.max_pool2d(x, 3, self.stride, padding, ceil_mode=True)
        return F.avg_pool2d(x, 3, self.stride, padding, ceil_mode=True, count_include_pad=False)


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """Rectifier, 1x1 and norm, (B, inputs, H, W) → (B, outputs, H, W)."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))


def separable(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Rectifier, depthwise, 1x1 and norm, twice; the stride in the first, (B, inputs, ...) → (B, outputs, ...)."""
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        depthwise = SameConv2d(channels, channels, kernel, step, groups=channels)
        layers += [nn.ReLU(), depthwise, nn.Conv2d(channels, outputs, 1, bias=False), norm(outputs)]
    return nn.Sequential(*layers)


class FactorizedReduction(nn.Module):
    """Half the size without losing pixels, (B, inputs, H, W) → (B, outputs, ceil(H / 2), ceil(W / 2)).

    Every second pixel for one half of the channels, those one further down and right for the other.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.conv2 = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (-1, 1, -1, 1))
        out: Tensor = self.norm(torch.cat([self.conv1(x[:, :, ::2, ::2]), self.conv2(shifted[:, :, ::2, ::2])], 1))
        return out


class Cell(nn.Module):
    """The last map (B, inputs, H, W) and the one before → (B, 6 width, H, W); a reduction → (B, 4 width, H / 2, ...).

    Args:
        table: NORMAL or REDUCTION.
        inputs: channels of the last map.
        before: channels of the map before it, None where there is none and the last stands in, as it is.
        larger: whether that map is twice as large as the last.
        width: channels of every operation.
        drop_path: probability that a sample skips an operation in training.
    """

    def __init__(
        self, table: tuple[Row, ...], inputs: int, before: int | None, larger: bool, width: int, drop_path: float
    ):
        super().__init__()
        self.table = table
        self.outputs = len(JOINED[table]) * width
        self.here = pointwise(inputs, width)
        self.before: nn.Module = nn.Identity()
        if before is not None:
            self.before = FactorizedReduction(before, width) if larger else pointwise(before, width)
        channels = [inputs if before is None else width, *[width] * 6]
        self.operations = nn.ModuleDict()
        for number, row in enumerate(table):
            for side, (kind, source) in zip(SIDES, row, strict=True):
                stride = 2 if table is REDUCTION and source < 2 else 1
                self.operations[f"{number}_{side}"] = self._operation(kind, channels[source], width, stride)
        self.drop_path = StochasticDepth(drop_path, "row")

    @staticmethod
    def _operation(kind: str, inputs: int, width: int, stride: int) -> nn.Module:
        name, _, kernel = kind.partition(" ")
        if name == "separable":
            return separable(inputs, width, int(kernel), stride)
        return nn.Identity() if name == "identity" else Pool(name, stride)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        maps = [self.before(before), self.here(x)]
        for number, row in enumerate(self.table):
            terms = []
            for side, (kind, source) in zip(SIDES, row, strict=True):
                term = self.operations[f"{number}_{side}"](maps[source])
                terms.append(term if kind == "identity" else self.drop_path(term))
            maps.append(terms[0] + terms[1])
        return torch.cat([maps[index] for index in JOINED[self.table]], 1)
