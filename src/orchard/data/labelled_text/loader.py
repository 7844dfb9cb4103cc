"""Batches of labelled texts of like lengths. A batch is a pure function of (seed, epoch, number): nothing is kept."""

from __future__ import annotations

import numpy as np
import torch

from orchard.data.indexed import IndexedBatches
from orchard.data.labelled_text.contracts import LabelledTexts
from orchard.data.pairs.loader import LengthOrder
from orchard.data.text_inputs import EncodedText, TextBatch, TextInputs

KEPT = 2**18  # texts whose tokens are remembered; of more, those of a few batches


class TextLoader(IndexedBatches[TextBatch]):
    """Texts of a split as a text encoder reads them.

    In training, texts of like lengths come together (`LengthOrder`), so that little is padded. In evaluation all come
    once, the longest first; `indices` of a batch say which is which.
    """

    def __init__(
        self,
        texts: LabelledTexts,
        inputs: TextInputs,
        *,
        batch_size: int,
        seed: int,
        training: bool,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__(
            len(texts), batch_size=batch_size, seed=seed, training=training, workers=workers, rank=rank, world=world,
            records="texts",
        )  # fmt: skip
        self.texts, self.inputs = texts, inputs
        self._encoded: dict[int, EncodedText] = {}
        self.labels = torch.from_numpy(texts.labels)
        if training:
            self.order = LengthOrder(self.order, self.batch_size, self.length, self._lengths)
        else:
            mine = np.arange(self.begin, self.end)
            self.sorted = mine[np.argsort(-self._lengths(mine)[:, 0], kind="stable")] if len(mine) else mine

    def _encode(self, indices: np.ndarray) -> list[EncodedText]:
        """All that are not remembered are made into tokens at once, in threads."""
        if self.count > KEPT:
            self._encoded.clear()
        new = [index for index in indices.tolist() if index not in self._encoded]
        texts = [self.texts.text(index) for index in new]
        firsts = self.inputs.tokenizer.encode_many([text for text, _ in texts])
        seconds = self.inputs.tokenizer.encode_many([pair for _, pair in texts if pair is not None])
        for place, index in enumerate(new):
            pair = seconds[place] if self.texts.paired else None
            self._encoded[index] = self.inputs.lay_out(firsts[place], pair)
        return [self._encoded[index] for index in indices.tolist()]

    def _lengths(self, indices: np.ndarray) -> np.ndarray:
        return np.array([[len(row.ids)] for row in self._encode(indices)])

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> TextBatch:
        mine = indices[part]
        if not self.training:
            mine = self.sorted[mine - self.begin]
        return self.inputs.labelled(self._encode(mine), self.labels[torch.from_numpy(mine)], mine)
