"""Batches of images.

Small images are kept decoded, and a batch of them costs less than handing it between processes would. Larger ones are
read, cropped and normalised by worker processes, which make whole batches.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data import augment as aug
from orchard.data.balanced import BalancedOrder
from orchard.data.batches import ImageBatch
from orchard.data.contracts import AugmentSettings, ImageSplit, Preprocess
from orchard.data.counter_rng import uniforms
from orchard.data.indexed import IndexedBatches, default_workers
from orchard.data.policies import by_policy
from orchard.data.preprocess import cut, fit

KEPT_BYTES = 512 * 2**20  # decoded images of one split that are kept in memory


class Loader(IndexedBatches[ImageBatch]):
    """Batches of `split`, varied by `augment`, or for evaluation (`augment=None`) as they are.

    `workers=None` takes as many processes as pay: none for small images, else one per free core up to eight. With
    `groups` (N,) int64 training draws each of them equally often.
    """

    def __init__(
        self,
        split: ImageSplit,
        preprocess: Preprocess,
        augment: AugmentSettings | None,
        *,
        batch_size: int,
        seed: int,
        workers: int | None,
        rank: int = 0,
        world: int = 1,
        groups: np.ndarray | None = None,
    ):
        kept = split.small and len(split) * preprocess.channels * int(np.prod(preprocess.size)) <= KEPT_BYTES
        if workers is None:
            workers = default_workers(world)
        super().__init__(
            len(split), batch_size=batch_size, seed=seed, training=augment is not None, workers=0 if kept else workers,
            rank=rank, world=world,
        )  # fmt: skip
        if groups is not None:
            self.order = BalancedOrder(seed, groups)
        self.split, self.preprocess, self.augment = split, preprocess, augment
        self.labels = torch.from_numpy(split.labels)
        self.images = _kept(split, preprocess) if kept else None

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> ImageBatch:
        """Images (B, C, H, W) float32, labels and indices (B,) int64.

        How images are varied is computed for the whole global batch, whoever holds which part of it.
        """
        mine = indices[part] % self.count  # an order may count how often a record came
        if self.augment is None:
            pixels = self.images[torch.from_numpy(mine)] if self.images is not None else self._read(mine)
            return self._finish(self.preprocess.normalise(pixels), mine)
        return self._finish(self.vary(uniforms(self.seed, epoch, indices), indices, part), mine)

    def vary(self, numbers: np.ndarray, indices: np.ndarray, part: slice) -> Tensor:
        """The images at `indices[part]`, (B, C, H, W) float32, varied as `numbers` (N, COLUMNS) say, a row for each of
        `indices` (N,)."""
        assert self.augment is not None
        mine = indices[part] % self.count
        if self.images is not None:
            settings, pixels = self.augment, self.images[torch.from_numpy(mine)]
        else:  # a resized crop and the mirroring are done on the way in, where they cost nothing
            settings = self.augment.model_copy(update={"flip": False})
            if settings.crop == "resized":
                settings = settings.model_copy(update={"crop": "none"})
            pixels = self._read(mine, numbers[part])
        if settings.policy != "none":
            pixels = by_policy(pixels, settings, numbers[part, aug.POLICY])
        variation = aug.plan(settings, numbers, self.preprocess.size).part(*part.indices(len(indices))[:2])
        return aug.erase(self.preprocess.normalise(aug.vary(pixels, variation)), variation)

    def _finish(self, images: Tensor, indices: np.ndarray) -> ImageBatch:
        rows = torch.from_numpy(indices)
        return ImageBatch(images, self.labels[rows], rows)

    def _read(self, indices: np.ndarray, numbers: np.ndarray | None = None) -> Tensor:
        """Decode pictures: (B, C, H, W) uint8; with `numbers` (B, COLUMNS) cropped and mirrored as they say."""
        rows, columns = self.preprocess.size
        pixels = np.empty((len(indices), self.preprocess.channels, rows, columns), np.uint8)
        for place, index in enumerate(indices):
            with self.split.open(int(index)) as picture:
                array = fit(picture, self.preprocess) if numbers is None else self._vary(picture, numbers[place])
            pixels[place] = array.transpose(2, 0, 1)
        return torch.from_numpy(pixels)

    def _vary(self, picture: Image.Image, numbers: np.ndarray) -> np.ndarray:
        """Crop and mirror one picture on its way in: (H, W, C) uint8."""
        augment = self.augment
        assert augment is not None
        if augment.crop == "resized":
            box = aug.resized_crops(numbers[None, aug.CROP], *picture.size, augment.area)[0].tolist()
            # Its size is chance anyway, so that a JPEG may be decoded as small as it comes.
            array = cut(picture, tuple(box), self.preprocess, spare=1.0)
        else:
            array = fit(picture, self.preprocess)
        return array[:, ::-1] if augment.flip and numbers[aug.FLIP] < 0.5 else array


def _kept(split: ImageSplit, preprocess: Preprocess) -> Tensor:
    """All pictures of a split as evaluation sees them, (N, C, H, W) uint8; made once, however many loaders ask."""
    known = _KEPT.setdefault(split, {})
    p = preprocess
    key = (p.size, p.channels, p.crop, p.resize, p.interpolation, p.fill if p.resize == "letterbox" else None)
    if key not in known:
        pixels = np.empty((len(split), *preprocess.size, preprocess.channels), np.uint8)
        for index in range(len(split)):
            with split.open(index) as picture:
                pixels[index] = fit(picture, preprocess)
        known[key] = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return known[key]


_KEPT: WeakKeyDictionary[ImageSplit, dict[tuple[Any, ...], Tensor]] = WeakKeyDictionary()
