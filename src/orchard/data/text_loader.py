"""Batches of text."""

from __future__ import annotations

import numpy as np
import torch

from orchard.data.batches import TokenBatch
from orchard.data.counter_rng import uniforms
from orchard.data.indexed import IndexedBatches
from orchard.data.text import TextSplit
from orchard.errors import OrchardError


class TextLoader(IndexedBatches[TokenBatch]):
    """Windows of a split, each of `context` predictions.

    In training every epoch cuts the text at another offset into windows that do not overlap, and shuffles them. In
    evaluation every token but the first is predicted once, in order; the last window is filled up with tokens that do
    not count.
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
        self.split, self.context = split, context
        predictions = len(split) - 1
        if training:
            windows = max(1, (len(split) - context) // context)  # as many, whatever the offset
            self.spare = min(predictions - windows * context, context - 1)
        else:
            windows = -(-predictions // context)
        super().__init__(
            windows, batch_size=batch_size, seed=seed, training=training, rank=rank, world=world,
            records=f"windows of {context} tokens",
        )  # fmt: skip

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> TokenBatch:
        starts = self.context * indices[part]
        if self.training:
            chance = uniforms(self.seed, epoch, np.array([self.count]), 1)[0, 0]  # of a record that no window is
            starts += int(chance * (self.spare + 1))
        positions = starts[:, None] + np.arange(self.context + 1)
        last = len(self.split) - 1
        tokens = self.split.tokens[np.minimum(positions, last)].astype(np.int64)
        weights = (positions[:, 1:] <= last).astype(np.float32)
        return TokenBatch(*(torch.from_numpy(array) for array in (tokens, weights, starts)))
