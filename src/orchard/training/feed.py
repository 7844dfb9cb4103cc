"""Where the batches of a training come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor


class Feed(ABC):
    """Numbered batches, each cut into micro-batches on the device.

    A data set is a pure function of the batch's number and has no state. What has state (a replay buffer, an
    environment) gives it in `state`; it is kept in the checkpoint.
    """

    batches_per_epoch: int

    @abstractmethod
    def batches(self, start: int) -> Iterator[list[Any]]:
        """The micro-batches of batch number `start`, then of the next, without end."""

    def example(self) -> Any:
        """A micro-batch at which the cost of a step can be tried. Nothing that comes later depends on it."""
        return next(iter(self.batches(0)))[0]

    @abstractmethod
    def name_records(self, batch: Any) -> str:
        """The first records of a batch, by the names a person knows them by."""

    def state(self) -> Mapping[str, Tensor]:
        """What the next batch depends on besides its number."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 most feeds have no state
        """The inverse of `state`."""


class Batches(Protocol):
    """What gives batches as a pure function of epoch and number."""

    def __len__(self) -> int: ...
    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]: ...


class LoaderFeed(Feed):
    """The batches of a loader, after `ready(batch, number)` has put them on the device.

    `key(index)` is the name of a record of its split.
    """

    def __init__(self, loader: Batches, accumulate: int, ready: Callable[[Any, int], Any], key: Callable[[int], str]):
        self.loader, self.accumulate, self.ready, self.key = loader, accumulate, ready, key
        self.batches_per_epoch = len(loader)

    def batches(self, start: int) -> Iterator[list[Any]]:
        number = start
        while True:
            epoch, offset = divmod(number, self.batches_per_epoch)
            for loaded in self.loader.batches(epoch, offset):
                yield self.ready(loaded, number).parts(self.accumulate)
                number += 1

    def name_records(self, batch: Any) -> str:
        return name_records(self.key, batch.indices)


def name_records(key: Callable[[int], str], indices: Tensor) -> str:
    """The first records of a batch, and how many more there are."""
    keys = [key(int(index)) for index in indices[:3]]
    return ", ".join(keys) + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")
