"""Batches of two random views of every image, for what learns without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch
from orchard.data.counter_rng import uniforms
from orchard.data.indexed import IndexedBatches
from orchard.data.loader import Loader


@dataclass(frozen=True)
class ViewsBatch(Batch):
    """Two views of the same images.

    first, second: (B, C, H, W) float, as the model's preprocessing left them;
    indices: (B,) int64.
    """

    first: Tensor
    second: Tensor
    indices: Tensor


class TwoViews(IndexedBatches[ViewsBatch]):
    """The batches of a training `loader`, each image twice.

    The first view is the one that the loader makes; the second has the random numbers of a record that there is not.
    """

    def __init__(self, loader: Loader):
        super().__init__(
            loader.count, batch_size=loader.batch_size, seed=loader.seed, training=True, workers=loader.workers,
            rank=loader.rank, world=loader.world,
        )  # fmt: skip
        self.loader = loader

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> ViewsBatch:
        first, second = (
            self.loader.vary(uniforms(self.seed, epoch, indices + view * self.count), indices, part) for view in (0, 1)
        )
        return ViewsBatch(first, second, torch.from_numpy(indices[part]))
