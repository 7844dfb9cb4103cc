"""Batches of patches at low and at high resolution, cut where chance says and turned alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data.batches import Batch
from orchard.data.counter_rng import COLUMNS, uniforms
from orchard.data.indexed import IndexedBatches, default_workers
from orchard.data.resolutions import Resolutions, enlarge, shrink

KEPT_BYTES = 512 * 2**20  # decoded images of one split that are kept in memory
MARGIN = 3  # pixels beyond a patch that its bicubic enlargement looks at, and one more
LEFT, TOP, FLIP, TURN, REFERENCE_FLIP, REFERENCE_TURN = range(6)  # the columns of random numbers
SCALE = COLUMNS - 1


@dataclass(frozen=True)
class PatchBatch(Batch):
    """low: (B, 3, p, p) uint8, or (B, 3, sp, sp) where it was enlarged bicubically; high: (B, 3, sp, sp) uint8;
    indices: (B,) int64 of the images that they are of. All patches of a batch are of one scale s."""

    low: Tensor
    high: Tensor
    indices: Tensor


@dataclass(frozen=True)
class ReferenceBatch(PatchBatch):
    """reference: (B, 3, sp, sp) uint8, a part of another picture."""

    reference: Tensor


class PatchLoader(IndexedBatches[PatchBatch]):
    """Training batches of `split`: `repeats` patches of every image in an epoch, `patch` pixels a side when low.

    A batch is of one of `scales`. `enlarged` gives the low resolution at the size of the high one.
    """

    def __init__(
        self,
        split: Resolutions,
        scales: tuple[int, ...],
        *,
        patch: int,
        repeats: int,
        enlarged: bool,
        flip: bool,
        turn: bool,
        batch_size: int,
        seed: int,
        workers: int | None,
        rank: int = 0,
        world: int = 1,
    ):
        pixels = sum(int(np.prod(split.size(index))) for index in range(len(split)))
        kept = 3 * pixels * len(scales) <= KEPT_BYTES
        super().__init__(
            len(split) * repeats, batch_size=batch_size, seed=seed, training=True,
            workers=(0 if kept else default_workers(world)) if workers is None else workers, rank=rank, world=world,
            records="patches",
        )  # fmt: skip
        self.split, self.scales, self.patch, self.enlarged = split, scales, patch, enlarged
        self.flip, self.turn = flip, turn
        self.images: dict[tuple[int, int], tuple[Image.Image, Image.Image | None]] | None = {} if kept else None

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> PatchBatch:
        chance = uniforms(self.seed, epoch, indices[:1])[0, SCALE]
        scale = self.scales[int(chance * len(self.scales))]
        mine = indices[part]
        pairs = [
            self._patches(int(index) % len(self.split), scale, row)
            for index, row in zip(mine, uniforms(self.seed, epoch, mine), strict=True)
        ]
        low, high = (torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2) for side in zip(*pairs, strict=True))
        return PatchBatch(low.contiguous(), high.contiguous(), torch.from_numpy(mine % len(self.split)))

    def _patches(self, index: int, scale: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both resolutions of one patch, (H, W, 3) uint8."""
        high, low = self._images(index, scale)
        p = self.patch
        left = int(numbers[LEFT] * (high.width // scale - p + 1))
        top = int(numbers[TOP] * (high.height // scale - p + 1))
        box = (left, top, left + p, top + p)
        if self.enlarged:
            small = enlarge_part(high, low, scale, box)
        else:
            small = low.crop(box) if low is not None else shrink(high, scale, box)
        large = high.crop((left * scale, top * scale, (left + p) * scale, (top + p) * scale))
        flip, turn = numbers[FLIP], numbers[TURN]
        return self._turned(small, flip, turn), self._turned(large, flip, turn)

    def _images(self, index: int, scale: int) -> tuple[Image.Image, Image.Image | None]:
        """High resolution, and the low one where it is stored, in RGB."""
        if self.images is not None and (index, scale) in self.images:
            return self.images[index, scale]
        high = self.split.high(index, scale).convert("RGB")
        pair = high, self.split.stored(index, scale, high)
        if self.images is not None:
            self.images[index, scale] = pair
        return pair

    def _turned(self, image: Image.Image, flip: float, turn: float) -> np.ndarray:
        """The pixels as two random numbers say."""
        pixels = np.asarray(image)
        if self.flip and flip < 0.5:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, int(turn * 4)) if self.turn else pixels


class ReferencePatchLoader(PatchLoader):
    """The same with a part of each image's reference, as large as the patch at high resolution and from the same place;
    it is turned by itself. One that is smaller is black beyond its lower and right edge."""

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> ReferenceBatch:
        batch, mine = super().make(epoch, indices, part), indices[part]
        side = batch.high.shape[-1]
        found = [
            self._reference(int(index) % len(self.split), side, row)
            for index, row in zip(mine, uniforms(self.seed, epoch, mine), strict=True)
        ]
        reference = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
        return ReferenceBatch(batch.low, batch.high, batch.indices, reference)

    def _reference(self, index: int, side: int, numbers: np.ndarray) -> np.ndarray:
        """(side, side, 3) uint8."""
        image = self.split.reference(index)
        assert image is not None, "a set for a model with a reference has one of each image"
        left = int(numbers[LEFT] * max(image.width - side + 1, 1))
        top = int(numbers[TOP] * max(image.height - side + 1, 1))
        window = image.crop((left, top, left + side, top + side))  # Pillow fills with black
        return self._turned(window, numbers[REFERENCE_FLIP], numbers[REFERENCE_TURN])


def enlarge_part(high: Image.Image, low: Image.Image | None, scale: int, box: tuple[int, int, int, int]) -> Image.Image:
    """What the low resolution, enlarged bicubically as a whole, has at `box` (in its pixels): made from a little more
    than that."""
    left, top = max(box[0] - MARGIN, 0), max(box[1] - MARGIN, 0)
    right, bottom = min(box[2] + MARGIN, high.width // scale), min(box[3] + MARGIN, high.height // scale)
    around = (left, top, right, bottom)
    region = low.crop(around) if low is not None else shrink(high, scale, around)
    return enlarge(region, scale, (box[0] - left, box[1] - top, box[2] - left, box[3] - top))
