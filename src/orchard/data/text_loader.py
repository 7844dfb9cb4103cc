"""Batches of text. A batch is a pure function of (seed, epoch, number): nothing is remembered between batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from orchard.data.chance import Order, uniforms
from orchard.data.text import TextSplit
from orchard.errors import OrchardError, UsageError
from orchard.tasks.text_generation import TokenBatch


class TextLoader:
    """Windows of a split, each of `context` predictions.

    In training every epoch cuts the text at another offset into windows that do not overlap, and shuffles them; the
    last partial batch is left out (unless there is no other). `batch_size` is the global one, of which each of `world`
    processes gets its own even part. In evaluation every token but the first is predicted once, in order; the last
    window is filled up with tokens that count nothing, and process `rank` gets one contiguous piece.
    """

    def __init__(
        self,
        split: TextSplit,
        context: int,
        batch_size: int,
        *,
        training: bool,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        least = context + 1 if training else 2
        if len(split) < least:
            raise OrchardError(
                f"{split.key} has {len(split)} tokens, at least {least} are needed for a context of {context}; give it "
                f"more text, or the model a shorter context"
            )
        if training and batch_size % world:
            raise UsageError(f"batch size {batch_size} cannot be dealt out evenly to {world} processes")
        self.split, self.context, self.training = split, context, training
        self.seed, self.rank, self.world = seed, rank, world
        predictions = len(split) - 1
        if training:
            self.windows = max(1, (len(split) - context) // context)  # as many, whatever the offset
            self.spare = min(predictions - self.windows * context, context - 1)
            self.batch_size = min(batch_size, self.windows - self.windows % world)
            if not self.batch_size:
                raise UsageError(f"{split.key} has {self.windows} windows of {context}, too few for {world} processes")
            self.begin, self.end = 0, self.windows
            self.length = self.windows // self.batch_size
            self.order = Order(seed, self.windows)
        else:
            self.windows = -(-predictions // context)
            self.begin, self.end = self.windows * rank // world, self.windows * (rank + 1) // world
            self.batch_size = max(1, batch_size // world)
            self.length = -(-(self.end - self.begin) // self.batch_size)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.length

    def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        """The batches of `epoch` from number `start` on."""
        for number in range(start, self.length):
            yield self.batch(epoch, number)

    def batch(self, epoch: int, number: int) -> TokenBatch:
        """One batch, this process's part of it."""
        if self.training:
            part = self.batch_size // self.world
            first = number * self.batch_size + part * self.rank
            chance = uniforms(self.seed, epoch, np.array([self.windows]), 1)[0, 0]  # of a record that no window is
            offset = int(chance * (self.spare + 1))
            starts = offset + self.context * self.order(epoch, first, first + part)
        else:
            first = self.begin + number * self.batch_size
            starts = np.arange(first, min(first + self.batch_size, self.end)) * self.context
        places = starts[:, None] + np.arange(self.context + 1)
        last = len(self.split) - 1
        tokens = self.split.tokens[np.minimum(places, last)].astype(np.int64)
        weights = (places[:, 1:] <= last).astype(np.float32)
        return TokenBatch(*(torch.from_numpy(array) for array in (tokens, weights, starts)))
