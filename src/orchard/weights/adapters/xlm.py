"""XLM's own code, which has the tokens first and then the texts, and lengths in place of a mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    """Texts first. The words that are asked for were counted token by token, here text by text."""
    tensors = dict(case.tensors)
    for name in ("x", "langs", "positions", "pred_mask"):
        if f"in.{name}" in tensors:
            tensors[f"in.{name}"] = tensors[f"in.{name}"].T.contiguous()
    asked, lengths = tensors["in.pred_mask"], tensors["in.lengths"]
    numbers = torch.full(asked.T.shape, -1)
    numbers[asked.T] = torch.arange(int(asked.sum()))
    order = numbers.T[asked]
    labels = torch.full(asked.shape, -100)
    labels[asked] = tensors["in.y"][order]
    tensors["in.mask"] = torch.arange(asked.shape[1]) < lengths[:, None]
    tensors["in.labels"] = labels
    tensors["out.hidden"] = tensors["out.hidden"].transpose(0, 1).contiguous()
    tensors["out.scores"] = tensors["out.scores"][order]
    return replace(case, tensors=tensors)


def run(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """States of all tokens, and logits of those that are asked for."""
    encoder: Any = model
    only = inputs.pop("only")
    return {"hidden": encoder.hidden(**inputs), "scores": encoder(**inputs, only=only)}


ADAPTER = Adapter(stored=stored, run=run)
