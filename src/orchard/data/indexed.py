"""Batches of records by their indices. A batch is a pure function of (seed, epoch, number): nothing is kept between."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from itertools import islice
from typing import Any, Generic, TypeVar, cast

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from orchard.data.contracts import RecordSplit
from orchard.data.counter_rng import Order
from orchard.errors import OrchardError, UsageError

B = TypeVar("B")
Place = tuple[int, int]  # epoch, number of the batch


class IndexedBatches(ABC, Generic[B]):
    """Numbered batches of `count` records.

    In training every epoch has its own order, and the last partial batch is left out (unless there is no other);
    `batch_size` is the global one, of which each of `world` processes gets its own equal part. In evaluation every
    record comes once, in order, and process `rank` gets one contiguous piece. With `workers`, that many processes make
    whole batches ahead of time. `records` is what the records are called in an error.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        training: bool,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        records: str = "images",
    ):
        if training and batch_size % world:
            raise UsageError(f"batch size {batch_size} cannot be divided equally among {world} processes")
        self.count, self.seed, self.training, self.workers, self.rank, self.world = (
            count, seed, training, workers, rank, world
        )  # fmt: skip
        if training:
            self.begin, self.end = 0, count
            self.batch_size = min(batch_size, count - count % world)
            if not self.batch_size:
                raise UsageError(f"{count} training {records} are too few for {world} processes")
            self.length = count // self.batch_size
        else:
            self.begin, self.end = count * rank // world, count * (rank + 1) // world
            self.batch_size = max(1, batch_size // world)
            self.length = -(-(self.end - self.begin) // self.batch_size)
        self.order = Order(seed, count)
        self._stream: Iterator[B | OrchardError] | None = None
        self._next: Place = (-1, -1)  # what the stream gives next

    @abstractmethod
    def make(self, epoch: int, indices: np.ndarray, part: slice) -> B:
        """The batch of the records at `indices` (N,) int64: of those of all processes, this one's `part`."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.length

    def batches(self, epoch: int, start: int = 0) -> Iterator[B]:
        """The batches of `epoch` from number `start` on. Raises OrchardError for a record that cannot be read."""
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
        if not self.training:
            self._stream = None  # an evaluation ends with its epoch, and its workers with it

    def batch(self, epoch: int, number: int) -> B:
        """One batch, this process's part of it."""
        first = self.begin + number * self.batch_size
        if not self.training:
            return self.make(epoch, np.arange(first, min(first + self.batch_size, self.end)), slice(None))
        part = slice(self.batch_size * self.rank // self.world, self.batch_size * (self.rank + 1) // self.world)
        return self.make(epoch, self.order(epoch, first, first + self.batch_size), part)

    def _start_workers(self, epoch: int, number: int) -> Iterator[B | OrchardError]:
        self._stream = None  # the old workers end before new ones start
        places = _places(epoch, number, self.length)
        if not self.training:
            places = islice(places, self.length - number)
        # The workers' copy has no stream, so that nothing refers to itself and all ends in time.
        batches, sampler = _Worker(copy(self)), cast("Sampler[Place]", places)
        return iter(DataLoader(batches, None, sampler=sampler, num_workers=self.workers, collate_fn=_unchanged))


def default_workers(world: int) -> int:
    """Processes that pay where making a batch takes time: one per free core up to eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // world))


def workers_for(asked: int | None, split: RecordSplit[Any], world: int) -> int:
    """As many as are asked for; else none for records that are made (`endless`), which takes less time than handing
    them between processes, and `default_workers` for files."""
    if asked is not None:
        return asked
    return 0 if split.endless else default_workers(world)


class _Worker(Dataset[Any]):
    """What a worker process holds: places in; batches out, or the error of a record."""

    def __init__(self, batches: IndexedBatches[Any]):
        self.batches = batches

    def __getitem__(self, place: Place) -> Any:
        try:
            return self.batches.batch(*place)
        except OrchardError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def _places(epoch: int, number: int, length: int) -> Iterator[Place]:
    """All places from this one on, without end, so that workers begin the next epoch while this one is ending."""
    while True:
        yield epoch, number
        epoch, number = (epoch, number + 1) if number + 1 < length else (epoch + 1, 0)
