"""torch.nn.Transformer, which has neither embeddings nor positions nor masks of its own: these stand around it here."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from orchard.nn.position import sinusoids
from orchard.weights.adapters import Adapter


class TorchTransformer(nn.Module):
    """Source and target ids to logits, by one table of embeddings, scaled, plus sinusoids."""

    def __init__(self, vocabulary: int, final_norm: bool, norm_first: bool, **sizes: Any):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, sizes["d_model"])
        with warnings.catch_warnings(action="ignore"):  # pre-norm blocks cannot have nested tensors, it says
            self.transformer = nn.Transformer(batch_first=True, norm_first=norm_first, **sizes)
        self.transformer.encoder.use_nested_tensor = False  # post-norm ones could, and would have no gradients
        if not final_norm:
            self.transformer.encoder.norm = self.transformer.decoder.norm = None

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        padding = ~source_mask
        x = self.transformer(
            self._embed(source), self._embed(target), tgt_mask=causal, src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )  # fmt: skip
        return x @ self.embedding.weight.T

    def _embed(self, ids: Tensor) -> Tensor:
        width = self.embedding.embedding_dim
        positions: Tensor = sinusoids(ids.shape[1], width, interleaved=True)
        return self.embedding(ids) * torch.tensor(width).sqrt() + positions


ADAPTER = Adapter(build=TorchTransformer)
