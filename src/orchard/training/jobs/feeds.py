"""The batches of a training on pictures: from a loader, made ready for the model, and cut into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor

from orchard.data import Loader
from orchard.data.contracts import ImageSplit
from orchard.training.jobs.base import Job


class Batches(Protocol):
    """What gives batches as a pure function of epoch and number (`data.Loader`, `data.captions.PairLoader`)."""

    def __len__(self) -> int: ...
    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]: ...


class LoaderFeed:
    """A step's batch is the loader's, after `ready(batch, step)` has put it on the device."""

    def __init__(self, loader: Batches, split: ImageSplit, accumulate: int, ready: Callable[[Any, int], Any]):
        self.loader, self.split, self.accumulate, self.ready = loader, split, accumulate, ready
        self.steps_per_epoch = len(loader)

    def steps(self, start: int) -> Iterator[list[Any]]:
        step = start
        while True:
            epoch, offset = divmod(step, self.steps_per_epoch)
            for loaded in self.loader.batches(epoch, offset):
                yield self.ready(loaded, step).parts(self.accumulate)
                step += 1

    def name_records(self, batch: Any) -> str:
        return name_records(self.split, batch.indices)


def training_loader(job: Job, split: ImageSplit, preprocess: Any) -> Loader:
    """The loader of a job's training pictures, this process's part of them."""
    s, fabric = job.settings, job.fabric
    return Loader(
        split, preprocess, s.augmentation, batch_size=s.batch_size, seed=s.seed, workers=s.data.workers,
        rank=fabric.global_rank, world=fabric.world_size,
    )  # fmt: skip


def name_records(split: ImageSplit, indices: Tensor) -> str:
    """The first records of a batch, by the names a person knows them by."""
    keys = [split.key(int(index)) for index in indices[:3]]
    return ", ".join(keys) + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")
