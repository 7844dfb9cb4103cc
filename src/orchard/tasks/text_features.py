"""Vectors of texts, by any model that reads texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.text_inputs import EncodedText
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.nn.text_pooling import masked_mean
from orchard.tasks.text_classification.pipeline import in_batches
from orchard.tasks.text_start import loaded_inputs

Pooling = Literal["model", "mean"]
POOL = 4096  # texts that are sorted by length together


def pooled(model: nn.Module, pooling: Pooling, tokens: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
    """(B, D): what the model itself takes for the text, or the mean over the states of its tokens."""
    network: Any = model
    if pooling == "model":
        return network.features(tokens, mask, segments)  # type: ignore[no-any-return]
    if not hasattr(network, "hidden"):
        raise UsageError(f"{type(network).__name__} has no state for each token; leave out the pooling")
    return masked_mean(network.hidden(tokens, mask, segments), mask)


class TextFeatures:
    """A trained model of texts that gives a vector (D,) for each of them."""

    def __init__(self, loaded: Loaded, pooling: Pooling = "model"):
        self.loaded, self.pooling = loaded, pooling
        self.model, self.inputs = loaded_inputs(loaded)

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """(N, D) float32 of all texts at once."""
        return np.stack(list(self.predict([texts] if isinstance(texts, str) else texts)))

    def predict(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """One vector for each text, in order. Raises UsageError for one that is empty."""
        for begin in range(0, len(texts), POOL):
            yield from self._pool(texts[begin : begin + POOL])

    def _pool(self, texts: Sequence[str]) -> list[np.ndarray]:
        for text in texts:
            if not text.strip():
                raise UsageError("one of the texts is empty; leave it out")
        rows = [self.inputs.lay_out(ids) for ids in self.inputs.tokenizer.encode_many(texts)]
        return list(in_batches(rows, self._vectors).numpy())

    @torch.no_grad()
    def _vectors(self, rows: Sequence[EncodedText]) -> Tensor:
        device = next(self.model.parameters()).device
        tokens, segments = self.inputs.batch(rows)
        vectors = pooled(
            self.model, self.pooling, tokens.values.to(device), tokens.mask.to(device), segments.to(device)
        )
        return vectors.float().cpu()
