"""Batches of pictures of two sides: a random part of each, of a pair the same one, mirrored half of the time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch
from orchard.data.contracts import Preprocess
from orchard.data.counter_rng import uniforms
from orchard.data.files import FileSplit
from orchard.data.indexed import IndexedBatches, default_workers
from orchard.data.preprocess import cut, fit, kept_box
from orchard.data.two_sides.contracts import TwoSides

LEFT, TOP, FLIP, PARTNER = range(4)  # columns of random numbers; B's own follow where it is no pair
OTHER = 4


@dataclass(frozen=True)
class SidesBatch(Batch):
    """a, b: (B, C, S, S) float, as the preprocessing of each side left them; indices: (B,) int64 of the records."""

    a: Tensor
    b: Tensor
    indices: Tensor


class SidesLoader(IndexedBatches[SidesBatch]):
    """Training batches of a split.

    Pictures are resized until their shorter side is `enlarge` times the model's, and a part of the model's size is cut
    out at random (the papers: 286 and 256 pixels), with `flip` mirrored half of the time. Both of a pair are treated
    alike. Without pairs an epoch has every picture of the larger side once, each with one of the other side by chance.
    """

    def __init__(
        self,
        split: TwoSides,
        preprocess: tuple[Preprocess, Preprocess],
        *,
        enlarge: float,
        flip: bool,
        batch_size: int,
        seed: int,
        workers: int | None,
        rank: int = 0,
        world: int = 1,
    ):
        small = split.a.small and split.b.small
        super().__init__(
            len(split), batch_size=batch_size, seed=seed, training=True,
            workers=(0 if small else default_workers(world)) if workers is None else workers, rank=rank, world=world,
        )  # fmt: skip
        self.split, self.preprocess, self.enlarge, self.flip = split, preprocess, enlarge, flip

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> SidesBatch:
        mine = indices[part]
        numbers = uniforms(self.seed, epoch, mine)
        a, b = self.split.a, self.split.b
        first, second, numbers_b = mine, mine, numbers
        if not self.split.paired:
            numbers_b = numbers[:, OTHER:]
            chosen = numbers[:, PARTNER]
            first = mine if len(a) >= len(b) else (chosen * len(a)).astype(np.int64)
            second = mine if len(b) > len(a) else (chosen * len(b)).astype(np.int64)
        return SidesBatch(
            self._side(a, first, numbers, self.preprocess[0]),
            self._side(b, second, numbers_b, self.preprocess[1]),
            torch.from_numpy(mine),
        )

    def _side(self, split: FileSplit, indices: np.ndarray, numbers: np.ndarray, preprocess: Preprocess) -> Tensor:
        found = [self._part(split, int(n), row, preprocess) for n, row in zip(indices, numbers, strict=True)]
        return preprocess.normalise(torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)).contiguous()

    def _part(self, split: FileSplit, index: int, numbers: np.ndarray, preprocess: Preprocess) -> np.ndarray:
        """(S, S, C) uint8."""
        with split.open(index) as picture:
            left, top, right, bottom = kept_box(*picture.size, replace(preprocess, crop=1 / self.enlarge))
            x = float(numbers[LEFT]) * (picture.width - (right - left))
            y = float(numbers[TOP]) * (picture.height - (bottom - top))
            box = (x, y, min(x + right - left, picture.width), min(y + bottom - top, picture.height))
            pixels = cut(picture, box, preprocess)
        return pixels[:, ::-1] if self.flip and numbers[FLIP] < 0.5 else pixels


def evaluation_pictures(split: FileSplit, indices: np.ndarray, preprocess: Preprocess) -> Tensor:
    """The middle of some pictures as evaluation sees them, (N, C, S, S) uint8."""
    pixels = []
    for index in indices:
        with split.open(int(index)) as picture:
            pixels.append(fit(picture, preprocess).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pixels))
