"""Batches of pictures with a caption each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from orchard.data.captions.contracts import CaptionSplit
from orchard.data.contracts import AugmentSettings, Preprocess
from orchard.data.counter_rng import COLUMNS, uniforms
from orchard.data.loader import Loader

_CHOICE = COLUMNS - 1  # the last of a record's numbers; augmentation uses the first


@dataclass(frozen=True)
class PairBatch:
    """What learns from pictures and texts is given.

    images: (B, C, H, W) float32, as the preprocessing left them; texts: B captions; indices: (B,) int64, the place of
    each record in its split.
    """

    images: Tensor
    texts: list[str]
    indices: Tensor

    def __len__(self) -> int:
        return len(self.texts)


class PairLoader:
    """`data.Loader` for pictures, of which it has the arguments, with the captions of each batch.

    A batch is a pure function of (seed, epoch, number). Of several captions training takes one by chance, another in
    each epoch; evaluation (`augment=None`) takes one by chance too, the same in every epoch.
    """

    def __init__(
        self,
        split: CaptionSplit,
        preprocess: Preprocess,
        augment: AugmentSettings | None,
        *,
        batch_size: int,
        seed: int,
        workers: int | None,
        rank: int = 0,
        world: int = 1,
    ):
        self.split, self.seed = split, seed
        self.pictures = Loader(
            split, preprocess, augment, batch_size=batch_size, seed=seed, workers=workers, rank=rank, world=world
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.pictures)

    def batches(self, epoch: int, start: int = 0) -> Iterator[PairBatch]:
        """The batches of `epoch` from number `start` on. Raises OrchardError for a record that cannot be read."""
        for batch in self.pictures.batches(epoch, start):
            yield PairBatch(batch.images, self.texts(epoch, batch.indices.numpy()), batch.indices)

    def texts(self, epoch: int, indices: np.ndarray) -> list[str]:
        """The captions of records (B,) in this epoch."""
        numbers = uniforms(self.seed, epoch if self.pictures.augment else 0, indices)[:, _CHOICE]
        choices = ((self.split.texts(int(index)), number) for index, number in zip(indices, numbers, strict=True))
        return [texts[int(number * len(texts))] for texts, number in choices]
