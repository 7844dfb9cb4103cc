"""Batches of images with something drawn on them: boxes, masks, segments."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np

from orchard.data.boxes.augment import Sizing
from orchard.data.contracts import Preprocess, RecordSplit
from orchard.data.counter_rng import uniforms
from orchard.data.indexed import IndexedBatches

B = TypeVar("B")
S = TypeVar("S", bound=RecordSplit[Any])
A = TypeVar("A")


class AnnotatedBatches(IndexedBatches[B], Generic[B, S, A]):
    """Batches of `split`, varied by `augment`, or for evaluation (`augment=None`) one image after the other."""

    def __init__(
        self,
        split: S,
        preprocess: Preprocess,
        sizing: Sizing,
        augment: A | None,
        *,
        batch_size: int = 1,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__(
            len(split), batch_size=batch_size if augment else world, seed=seed, training=augment is not None,
            workers=workers, rank=rank, world=world,
        )  # fmt: skip
        self.split, self.preprocess, self.sizing, self.augment = split, preprocess, sizing, augment

    def taken(self, epoch: int, indices: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """The records of this process's part of a batch, (N,) int64, and of each the numbers by which it is varied.

        Of a set without end, every epoch of a training has new records.
        """
        mine = indices[part]
        numbers = uniforms(self.seed, epoch, mine)
        return mine + epoch * self.count if self.training and self.split.endless else mine, numbers
