"""Interaction with what is near: every position of a map takes from a square around it, of a map of the same size.

FPT's locality-constrained grounding transformer (Zhang et al. 2020, arXiv:2007.09451, section 3.3) and the form that
its authors released, stand-alone self-attention (Ramachandran et al. 2019, arXiv:1906.05909). Squares are laid out for
a band of rows at a time. Legend: B images, C channels, S² cells of a square, N parts of a mixture.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn import non_local
from orchard.nn.non_local import MixtureOfSoftmaxes, in_pieces, negative_squared_distance


def squares(band: Tensor, side: int) -> Tensor:
    """The squares in rows (B, C, h + side - 1, W + side - 1), by their middles: (B, C, S², h, W)."""
    height, width = (edge - side + 1 for edge in band.shape[2:])
    return F.unfold(band, side).view(band.shape[0], band.shape[1], side**2, height, width)


def cut(x: Tensor, parts: int) -> Tensor:
    """Channels in parts: (B, parts, C / parts, ...)."""
    return x.reshape(x.shape[0], parts, -1, *x.shape[2:])


def by_bands(compute: Callable[..., Tensor], queries: Tensor, keys: Tensor, values: Tensor, side: int) -> Tensor:
    """`compute(queries, keys, values)` of maps (B, C, H, W) in bands of rows: of the latter two their squares
    (B, C, S², h, W), with zeros beyond the border. Not more than `ROOM` numbers of an image are laid out at once."""
    reach, height, width = side // 2, *queries.shape[2:]
    padded = [F.pad(x, (reach,) * 4) for x in (keys, values)]
    rows = max(1, non_local.ROOM // ((keys.shape[1] + values.shape[1]) * side**2 * width))
    tops = range(0, height, rows)
    pieces = [
        (queries[:, :, top : top + rows], *(x[:, :, top : top + rows + 2 * reach] for x in padded)) for top in tops
    ]

    def band(some: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return compute(some, squares(key, side), squares(value, side))

    return in_pieces(band, pieces, 2)


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
            found = f"{tuple(queries.shape[2:])} and {tuple(keys.shape[2:])}"
            raise ValueError(f"local grounding expected levels of one size, as of an unscathed pyramid, got {found}")
        shares = self.shares(queries, keys)[..., None, None, None]

        def compute(some: Tensor, key: Tensor, value: Tensor) -> Tensor:
            asked, key = (cut(x, self.parts) for x in (some, key))
            scores = (key * (2 * asked[:, :, :, None] - key)).sum(2)  # without |q|², which the softmax does not see
            weights = (shares * scores.softmax(2)).sum(1)  # (B, S², h, W)
            return (weights[:, None] * value).sum(2)

        return by_bands(compute, queries, keys, values, self.side)


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
        self.value = nn.Conv2d(2 * channels, outputs, 1, bias=False)
        self.rows = nn.Parameter(torch.randn(outputs // 2, side))
        self.columns = nn.Parameter(torch.randn(outputs - outputs // 2, side))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = torch.cat([fine, coarse], 1)
        rows, columns = self.rows.repeat_interleave(self.side, 1), self.columns.repeat(1, self.side)
        places = torch.cat([rows, columns])[..., None, None]  # (outputs, S², 1, 1)

        def compute(some: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return ((some[:, :, None] * (key + places)).softmax(2) * value).sum(2)

        return by_bands(compute, self.query(x), self.key(x), self.value(x), self.side)


class StemAttention(nn.Module):
    """The same without r; values are a mixture of several convolutions, which every cell of a square mixes in its own
    way: by the softmax over them of m · (a of the row + b of the column)."""

    def __init__(self, channels: int, outputs: int, side: int, mixed: int = 4):
        super().__init__()
        check_square(side)
        self.side, self.mixed = side, mixed
        self.query = nn.Conv2d(2 * channels, outputs, 1, bias=False)
        self.key = nn.Conv2d(2 * channels, outputs, 1, bias=False)
        self.value = nn.ModuleList(nn.Conv2d(2 * channels, outputs, 1, bias=False) for _ in range(mixed))
        self.rows = nn.Parameter(torch.randn(outputs // 4, side))
        self.columns = nn.Parameter(torch.randn(outputs // 4, side))
        self.mix = nn.Parameter(torch.randn(mixed, outputs // 4))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = torch.cat([fine, coarse], 1)
        places = (self.rows[:, :, None] + self.columns[:, None]).flatten(1)  # (outputs / 4, S²)
        shares = (self.mix @ places).softmax(0)[:, None, :, None, None]  # (mixed, 1, S², 1, 1)

        def compute(some: Tensor, key: Tensor, several: Tensor) -> Tensor:
            value = (cut(several, self.mixed) * shares).sum(1)
            return ((some[:, :, None] * key).softmax(2) * value).sum(2)

        several = torch.cat([layer(x) for layer in self.value], 1)
        return by_bands(compute, self.query(x), self.key(x), several, self.side)
