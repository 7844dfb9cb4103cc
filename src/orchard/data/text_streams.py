"""A text cut into streams that are read side by side, segment by segment: what a model with a state learns from.

Where a segment lies follows from the seed and its number alone, also where lengths vary.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import TokenBatch
from orchard.data.counter_rng import uniforms
from orchard.data.text import TextSplit
from orchard.errors import OrchardError

WHOLE = 0.95  # share of varied segments that are about as long as asked for; the others are about half of it
SPREAD, SHORTEST = 5.0, 5  # standard deviation of their lengths in tokens, and the least


@dataclass(frozen=True)
class StreamBatch(TokenBatch):
    """The next segment of some streams.

    streams: (B,) int64, which of the streams each row is;
    begins: (B,) bool, true where the stream begins, so that nothing was read before.
    """

    streams: Tensor
    begins: Tensor


class TextStreams:
    """A split as `rows` streams of equal lengths; what is left over at the end of the text is not read.

    All streams are read from beginning to end, then again: passes have no order of their own. Segments have `segment`
    predictions, the last of a pass has fewer. `varied` ones have lengths at random (Merity et al. 2017,
    arXiv:1708.02182, section 5): normal around `segment`, every twentieth around half of it, so that not always the
    same tokens stand at the ends of segments; so passes differ in how many they have.
    """

    def __init__(self, split: TextSplit, rows: int, segment: int, *, seed: int, varied: bool):
        length = len(split) // rows
        if length < segment + 1:
            raise OrchardError(
                f"{split.key} has {len(split)} tokens, at least {rows * (segment + 1)} are needed for {rows} streams "
                f"with segments of {segment}; give it more text, a smaller batch_size or a shorter architecture.context"
            )
        self.key, self.segment, self.seed, self.varied = split.key, segment, seed, varied
        self.tokens = split.tokens[: rows * length].reshape(rows, length)
        mean = segment * (1 + WHOLE) / 2 if varied else segment
        self.per_pass = math.ceil((length - 1) / mean)
        self._before = [0]  # batches before each pass, as far as it was asked for
        self._kept: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Batches of a pass; where lengths vary, about as many."""
        return self.per_pass

    def bounds(self, number: int) -> np.ndarray:
        """Where the segments of pass `number` begin, and where the last one ends, (S + 1,) int64."""
        if self._kept[0] != number:
            self._kept = number, self._cut(number)
        return self._kept[1]

    def _cut(self, number: int) -> np.ndarray:
        last = self.tokens.shape[1] - 1
        if not self.varied:
            return np.append(np.arange(0, last, self.segment), last)
        chance = uniforms(self.seed, number, np.arange(last // SHORTEST + 1), 3)
        base = np.where(chance[:, 0] < WHOLE, self.segment, self.segment / 2)
        normal = np.sqrt(-2 * np.log1p(-chance[:, 1])) * np.cos(2 * np.pi * chance[:, 2])
        ends = np.cumsum(np.maximum(np.trunc(base + SPREAD * normal).astype(np.int64), SHORTEST))
        return np.concatenate([[0], ends[ends < last], [last]])

    def locate(self, number: int) -> tuple[int, int]:
        """The pass that batch `number` is of, and its place in it."""
        if not self.varied:
            return divmod(number, len(self))
        while self._before[-1] <= number:
            self._before.append(self._before[-1] + len(self.bounds(len(self._before) - 1)) - 1)
        turn = bisect_right(self._before, number) - 1
        return turn, number - self._before[turn]

    def length_of(self, number: int) -> int:
        """Predictions of each row of batch `number`."""
        turn, place = self.locate(number)
        bounds = self.bounds(turn)
        return int(bounds[place + 1] - bounds[place])

    def batch(self, turn: int, place: int) -> StreamBatch:
        begin, end = self.bounds(turn)[place : place + 2]
        rows, length = self.tokens.shape
        tokens = torch.from_numpy(self.tokens[:, begin : end + 1].astype(np.int64))
        streams = torch.arange(rows)
        return StreamBatch(
            tokens, torch.ones(rows, int(end - begin)), streams * length + int(begin), streams,
            torch.full((rows,), not place),
        )  # fmt: skip

    def batches(self, number: int) -> Iterator[StreamBatch]:
        """Batch `number` and all that follow it, without end."""
        turn, place = self.locate(number)
        while True:
            for current in range(place, len(self.bounds(turn)) - 1):
                yield self.batch(turn, current)
            turn, place = turn + 1, 0
