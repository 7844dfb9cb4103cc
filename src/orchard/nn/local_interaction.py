"""Interaction with what is near: every position of a map takes from a square around it, of a map of the same size.

FPT's locality-constrained grounding transformer (Zhang et al. 2020, arXiv:2007.09451, section 3.3) and the form that
its authors released, stand-alone self-attention (Ramachandran et al. 2019, arXiv:1906.05909). The squares are never
laid out: the map is moved by one cell at a time, so that memory grows with the cells of a square, not with their
channels too.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.non_local import MixtureOfSoftmaxes, negative_squared_distance


def neighbours(x: Tensor, side: int) -> Iterator[Tensor]:
    """For each cell of a square, row by row, the map (B, C, H, W) of what stands there around every position.

    Beyond the border are zeros.
    """
    height, width = x.shape[2:]
    padded = F.pad(x, (side // 2,) * 4)
    for row in range(side):
        for column in range(side):
            yield padded[:, :, row : row + height, column : column + width]


def check_square(side: int) -> None:
    if side < 1 or side % 2 == 0:
        raise ValueError(f"expected an odd side of at least 1, got {side}")


class LocalMixture(MixtureOfSoftmaxes):
    """The mixture of softmaxes over the negative squared distances to the keys of a square; an interaction.

    Keys and values beyond the border are zeros, and are weighed as such (section 3.3). Raises ValueError where keys are
    not of the queries' height and width.
    """

    def __init__(self, dim: int, parts: int, side: int):
        super().__init__(dim, parts, negative_squared_distance, mean_of="keys")
        check_square(side)
        self.side = side

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if queries.shape[2:] != keys.shape[2:]:
            sizes = f"{tuple(queries.shape[2:])} and {tuple(keys.shape[2:])}"
            raise ValueError(f"expected levels of one size, as in an unscathed pyramid, for local grounding, got {sizes}")
        shares = self.shares(queries, keys)[..., None, None, None]
        asked = queries.unflatten(1, (self.parts, -1))
        scores = []
        for near in neighbours(keys, self.side):
            key = near.unflatten(1, (self.parts, -1))
            scores.append(((2 * asked - key) * key).sum(2))  # without |q|², as the softmax does not see it
        weights = (shares * torch.stack(scores, 2).softmax(2)).sum(1)  # (B, side², H, W)
        return sum(  # type: ignore[return-value]
            weight[:, None] * near
            for weight, near in zip(weights.unbind(1), neighbours(values, self.side), strict=True)
        )


class StandAloneAttention(nn.Module):
    """Two maps of one size, (B, C, H, W) each, laid together, to (B, outputs, H, W): attention in squares.

    Every channel has a softmax of its own over the square, of q · (k + r), where r is learned: of the row for half of
    the channels, of the column for the others.
    """

    def __init__(self, channels: int, outputs: int, side: int):
        super().__init__()
        check_square(side)
        self.side = side
        self.query = nn.Conv2d(2 * channels, outputs, 1, bias=False)
        self.key = nn.Conv2d(2 * channels, outputs, 1, bias=False)
        self.make_values(2 * channels, outputs)

    def make_values(self, inputs: int, outputs: int) -> None:
        self.value = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.rows = nn.Parameter(torch.randn(outputs // 2, self.side))
        self.columns = nn.Parameter(torch.randn(outputs - outputs // 2, self.side))

    def distances(self) -> Tensor | float:
        """What is added to the keys of each cell, (side², outputs, 1, 1)."""
        rows = self.rows.T.repeat_interleave(self.side, 0)
        columns = self.columns.T.repeat(self.side, 1)
        return torch.cat([rows, columns], 1)[..., None, None]

    def values(self, x: Tensor) -> Iterator[Tensor]:
        """The values of each cell, (B, outputs, H, W)."""
        yield from neighbours(self.value(x), self.side)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = torch.cat([fine, coarse], 1)
        keys = torch.stack(list(neighbours(self.key(x), self.side)), 1) + self.distances()  # (B, side², C, H, W)
        weights = (self.query(x)[:, None] * keys).softmax(1)
        pairs = zip(weights.unbind(1), self.values(x), strict=True)
        return sum(weight * value for weight, value in pairs)  # type: ignore[return-value]


class StemAttention(StandAloneAttention):
    """The same without r; values are a mixture of several convolutions, which every cell of a square mixes in its own
    way: by the softmax over them of m · (a of the row + b of the column)."""

    mixed = 4

    def make_values(self, inputs: int, outputs: int) -> None:
        self.value = nn.ModuleList(nn.Conv2d(inputs, outputs, 1, bias=False) for _ in range(self.mixed))
        self.rows = nn.Parameter(torch.randn(outputs // 4, self.side))
        self.columns = nn.Parameter(torch.randn(outputs // 4, self.side))
        self.mix = nn.Parameter(torch.randn(self.mixed, outputs // 4))

    def distances(self) -> float:
        return 0.0

    def values(self, x: Tensor) -> Iterator[Tensor]:
        places = self.rows[:, :, None] + self.columns[:, None]  # (C / 4, side, side)
        shares = (self.mix @ places.flatten(1)).softmax(0)  # (mixed, side²)
        several = [neighbours(layer(x), self.side) for layer in self.value]
        for n, maps in enumerate(zip(*several, strict=True)):
            yield sum(share * one for share, one in zip(shares[:, n], maps, strict=True))  # type: ignore[misc]
