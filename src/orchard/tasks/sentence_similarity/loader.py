"""Batches of pairs of sentences, each read by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch, Padded
from orchard.data.indexed import IndexedBatches
from orchard.data.labelled_text.contracts import LabelledTexts
from orchard.data.text_inputs import TextInputs


@dataclass(frozen=True)
class SentencePairs(Batch):
    """first, second: (B, T) int64 tokens of both sentences, with their masks; scores: (B,) float32; indices: (B,)."""

    first: Padded
    second: Padded
    scores: Tensor
    indices: Tensor


class SentencePairLoader(IndexedBatches[SentencePairs]):
    """Pairs of a split with their scores."""

    def __init__(self, texts: LabelledTexts, inputs: TextInputs, *, batch_size: int, seed: int, training: bool,
                 rank: int = 0, world: int = 1):  # fmt: skip
        super().__init__(len(texts), batch_size=batch_size, seed=seed, training=training, rank=rank, world=world,
                         records="pairs")  # fmt: skip
        self.texts, self.inputs, self.scores = texts, inputs, torch.from_numpy(texts.labels[:, 0].copy())

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> SentencePairs:
        mine = indices[part]
        pairs = [self.texts.text(index) for index in mine.tolist()]
        first, second = (
            self.inputs.batch([self.inputs.lay_out(ids) for ids in self.inputs.tokenizer.encode_many(side)])[0]
            for side in ([a for a, _ in pairs], [b or "" for _, b in pairs])
        )
        places = torch.from_numpy(mine.astype(np.int64))
        return SentencePairs(first, second, self.scores[places], places)
