"""Batches of text with hidden tokens, and of two texts of which a model says how they go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch, Padded
from orchard.data.counter_rng import uniforms
from orchard.data.indexed import IndexedBatches
from orchard.data.masking import DRAWS, NOT_ASKED, Masker, sentence_ends
from orchard.data.text import TextSplit
from orchard.data.text_inputs import EncodedText, TextInputs
from orchard.errors import OrchardError


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """Texts with hidden tokens.

    tokens: (B, T) int64 and their mask;
    segments: (B, T) int64;
    labels: (B, T) int64, the token that was there, -100 where nothing is asked;
    pairs: (B,) int64, 0 where the second text follows the first and 1 where not, -100 where there is one text;
    indices: (B,) int64.
    """

    tokens: Padded
    segments: Tensor
    labels: Tensor
    pairs: Tensor
    indices: Tensor


class MaskedLoader(IndexedBatches[MaskedBatch]):
    """Windows of a split, as long as a model reads at once, with tokens hidden anew in every epoch.

    In training every epoch cuts the text at another offset; in evaluation every token is read once, and always the same
    tokens are hidden. `question` is what is asked of two texts: "next-sentence" (the second is of another place in half
    of the pairs, BERT), "sentence-order" (they are exchanged in half of them, ALBERT), or nothing, and then there is
    one text. Both texts of a pair are of one window, cut where a sentence ends, if one does.
    """

    def __init__(
        self,
        split: TextSplit,
        inputs: TextInputs,
        masker: Masker,
        question: str | None,
        *,
        batch_size: int,
        seed: int,
        training: bool,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.split, self.inputs, self.masker, self.question = split, inputs, masker, question
        form = inputs.single if question is None else inputs.pair
        self.room = inputs.length - sum(role not in ("a", "b") for role, _ in form)
        least = self.room if training else 2
        if len(split) < least:
            raise OrchardError(f"{split.key} has {len(split)} tokens, at least {least} are needed for texts of "
                               f"{inputs.length}; give it more text, or a shorter text.length")  # fmt: skip
        windows = max(1, (len(split) - self.room) // self.room) if training else -(-len(split) // self.room)
        self.spare = min(len(split) - windows * self.room, self.room - 1) if training else 0
        self.ends = sentence_ends(inputs.tokenizer) if question else np.empty(0, np.int64)
        super().__init__(
            windows, batch_size=batch_size, seed=seed, training=training, workers=workers, rank=rank, world=world,
            records=f"windows of {self.room} tokens",
        )  # fmt: skip

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> MaskedBatch:
        mine = indices[part]
        offset = int(uniforms(self.seed, epoch, np.array([self.count]), 1)[0, 0] * (self.spare + 1))
        rows, pairs = zip(*(self._row(epoch, int(index), offset) for index in mine), strict=True)
        hidden = [self._hide(epoch, int(index), row) for index, row in zip(mine, rows, strict=True)]
        tokens, segments = self.inputs.batch([row for row, _ in hidden])
        labels = Padded.of([torch.from_numpy(label) for _, label in hidden], NOT_ASKED).values
        return MaskedBatch(tokens, segments, labels, torch.tensor(pairs), torch.from_numpy(mine))

    def _row(self, epoch: int, index: int, offset: int) -> tuple[EncodedText, int]:
        """One window, or two texts of it and how they go together."""
        start = self.room * index + offset
        window = self.split.tokens[start : start + self.room].astype(np.int64)
        if self.question is None or len(window) < 2:
            return self.inputs.lay_out(window.tolist()), NOT_ASKED
        coin, where, other = uniforms(self.seed, epoch, np.array([index]), 3)[0]
        cuts = np.flatnonzero(np.isin(window[:-1], self.ends)) + 1
        cut = int(cuts[int(where * len(cuts))]) if len(cuts) else 1 + int(where * (len(window) - 1))
        first, second = window[:cut], window[cut:]
        if coin < 0.5:
            return self.inputs.lay_out(first.tolist(), second.tolist()), 0
        if self.question == "sentence-order":
            return self.inputs.lay_out(second.tolist(), first.tolist()), 1
        begin = int(other * (len(self.split) - len(second) + 1))
        second = self.split.tokens[begin : begin + len(second)].astype(np.int64)
        return self.inputs.lay_out(first.tolist(), second.tolist()), 1

    def _hide(self, epoch: int, index: int, row: EncodedText) -> tuple[EncodedText, np.ndarray]:
        """The row with tokens hidden, and labels; its random numbers are those of records that no window is."""
        records = self.count + 1 + index * self.inputs.length + np.arange(len(row.ids))
        hidden, labels = self.masker(np.array(row.ids), uniforms(self.seed, epoch, records, DRAWS))
        return EncodedText(hidden.tolist(), row.segments, row.begin), labels
