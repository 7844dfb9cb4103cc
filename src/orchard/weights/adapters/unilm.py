"""UniLM's own code, which says how many tokens both texts have, and at which places it asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models.language.text_encoder import pretraining_loss
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    """The mask from both lengths; labels at their places, those without weight left out."""
    tensors = dict(case.tensors)
    count, length = tensors["in.input_ids"].shape
    lengths = tensors["in.num_tokens_a"] + tensors["in.num_tokens_b"]
    labels = torch.full((count, length), -100)
    for row in range(count):
        asked = tensors["in.masked_weights"][row] > 0
        labels[row, tensors["in.masked_pos"][row][asked]] = tensors["in.masked_lm_labels"][row][asked]
    tensors["in.mask"] = torch.arange(length) < lengths[:, None]
    tensors["in.labels"] = labels
    return replace(case, tensors=tensors)


def run(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """Logits at the places (B, N) that are asked about, and of the pairs."""
    places = inputs.pop("places")
    result = model(**inputs)
    rows = torch.arange(len(places))[:, None]
    return {"tokens": result.tokens[rows, places], "pair": result.pair}


def losses(model: nn.Module, labels: Tensor, pairs: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
    """That of the tokens, and both."""
    return {
        "tokens": pretraining_loss(model, labels=labels, **inputs),
        "all": pretraining_loss(model, labels=labels, pairs=pairs, **inputs),
    }


ADAPTER = Adapter(stored=stored, run=run)
