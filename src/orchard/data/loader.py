"""Batches from a split. A batch is a pure function of (seed, epoch, number): nothing is remembered between batches.

Small pictures are kept decoded, and a batch of them costs less than handing it between processes would. Larger ones are
read, cropped and normalised by worker processes, which are given numbers of batches and give back whole batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import copy
from itertools import islice
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from orchard.data import augment as aug
from orchard.data.chance import Order, uniforms
from orchard.data.contracts import AugmentSettings, ImageSplit, Preprocess
from orchard.data.preprocess import cut, fit
from orchard.errors import OrchardError, UsageError
from orchard.tasks.image_classification import ImageBatch

KEPT_BYTES = 512 * 2**20  # decoded pictures of one split that are kept in memory
Place = tuple[int, int]  # epoch, number of the batch


class Loader:
    """Batches of `split`, varied by `augment`, or for evaluation (`augment=None`) as they are.

    In training every epoch has its own order, and the last partial batch is left out (unless there is no other);
    `batch_size` is the global one, of which each of `world` processes gets its own even part. In evaluation every
    picture comes once, in order, and process `rank` gets one contiguous piece of the split. `workers=None` takes as
    many processes as pay: none for small pictures, else one per free core up to eight.
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
    ):
        if augment and batch_size % world:
            raise UsageError(f"batch size {batch_size} cannot be dealt out evenly to {world} processes")
        self.split, self.preprocess, self.augment = split, preprocess, augment
        self.seed, self.rank, self.world = seed, rank, world
        self.labels = torch.from_numpy(split.labels)
        kept = split.small and len(split) * preprocess.channels * int(np.prod(preprocess.size)) <= KEPT_BYTES
        self.pictures = _kept(split, preprocess) if kept else None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = 0 if kept else max(1, min(8, cores // world)) if workers is None else workers
        if augment:
            self.begin, self.end = 0, len(split)
            self.batch_size = min(batch_size, len(split) - len(split) % world)
            if not self.batch_size:
                raise UsageError(f"{len(split)} training pictures are too few for {world} processes")
            self.length = len(split) // self.batch_size
        else:
            self.begin, self.end = len(split) * rank // world, len(split) * (rank + 1) // world
            self.batch_size = max(1, batch_size // world)
            self.length = -(-(self.end - self.begin) // self.batch_size)
        self.order = Order(seed, len(split))
        self._stream: Iterator[ImageBatch | OrchardError] | None = None
        self._next: Place = (-1, -1)  # what the stream gives next

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.length

    def batches(self, epoch: int, start: int = 0) -> Iterator[ImageBatch]:
        """The batches of `epoch` from number `start` on. Raises OrchardError for a picture that cannot be read."""
        for number in range(start, self.length):
            if self.workers == 0:
                yield self.batch(epoch, number)
                continue
            if self._stream is None or self._next != (epoch, number):
                self._stream = self._start_workers(epoch, number)
            self._next = (epoch, number + 1) if number + 1 < self.length else (epoch + 1, 0)
            batch = next(self._stream)
            if isinstance(batch, OrchardError):
                self._stream = None
                raise batch
            yield batch
        if self.augment is None:
            self._stream = None  # an evaluation ends with its epoch, and its workers with it

    def _start_workers(self, epoch: int, number: int) -> Iterator[ImageBatch | OrchardError]:
        self._stream = None  # the old workers end before new ones start
        places = _places(epoch, number, self.length)
        if self.augment is None:
            places = islice(places, self.length - number)
        # The workers' copy of this loader has no stream, so that nothing refers to itself and all ends in time.
        batches, sampler = _Batches(copy(self)), cast("Sampler[Place]", places)
        return iter(DataLoader(batches, None, sampler=sampler, num_workers=self.workers, collate_fn=_as_it_is))

    def batch(self, epoch: int, number: int) -> ImageBatch:
        """One batch: images (B, C, H, W) float32, labels (B,) and indices (B,) int64; this process's part of it."""
        first = self.begin + number * self.batch_size
        if self.augment is None:
            indices = np.arange(first, min(first + self.batch_size, self.end))
            pixels = self.pictures[torch.from_numpy(indices)] if self.pictures is not None else self._read(indices)
            return self._finish(self.preprocess.normalise(pixels), indices)
        together = self.order(epoch, first, first + self.batch_size)
        numbers = uniforms(self.seed, epoch, together)
        part = self.batch_size * self.rank // self.world, self.batch_size * (self.rank + 1) // self.world
        indices = together[slice(*part)]
        if self.pictures is not None:
            settings, pixels = self.augment, self.pictures[torch.from_numpy(indices)]
        else:  # a resized crop and the mirroring are done on the way in, where they cost nothing
            settings = self.augment.model_copy(update={"flip": False})
            if settings.crop == "resized":
                settings = settings.model_copy(update={"crop": "none"})
            pixels = self._read(indices, numbers[slice(*part)])
        variation = aug.plan(settings, numbers, self.preprocess.size).part(*part)
        images = self.preprocess.normalise(aug.vary(pixels, variation))
        return self._finish(aug.erase(images, variation), indices)

    def _finish(self, images: Tensor, indices: np.ndarray) -> ImageBatch:
        places = torch.from_numpy(indices)
        return ImageBatch(images, self.labels[places], places)

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
    key = (preprocess.size, preprocess.channels, preprocess.crop, preprocess.squash, preprocess.interpolation)
    if key not in known:
        pixels = np.empty((len(split), *preprocess.size, preprocess.channels), np.uint8)
        for index in range(len(split)):
            with split.open(index) as picture:
                pixels[index] = fit(picture, preprocess)
        known[key] = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return known[key]


_KEPT: WeakKeyDictionary[ImageSplit, dict[tuple[Any, ...], Tensor]] = WeakKeyDictionary()


class _Batches(Dataset[ImageBatch | OrchardError]):
    """What a worker process holds: places in; batches out, or what was wrong with a picture, in its own words."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def __getitem__(self, place: Place) -> ImageBatch | OrchardError:
        try:
            return self.loader.batch(*place)
        except OrchardError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _places(epoch: int, number: int, length: int) -> Iterator[Place]:
    """All places from this one on, without end, so that workers begin the next epoch while this one is ending."""
    while True:
        yield epoch, number
        epoch, number = (epoch, number + 1) if number + 1 < length else (epoch + 1, 0)
