"""Transformer-XL's code: tokens stand time by time, and memories are handed from segment to segment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def _as_ours(stored: Stored) -> Stored:
    """Batch first. PyTorch's memories without the last layer's, which nothing reads."""
    tensors = {**stored.tensors, "in.tokens": stored.tensors["in.stream"].T.contiguous()}
    if "out.hidden.0" in tensors:
        tensors |= {name: one[:-1] for name, one in tensors.items() if name.startswith("out.mems.")}
    return replace(stored, tensors=tensors)


def _segments(model: Any, tokens: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Of three segments the hidden states and the memories, both time by time, and the mean nats."""
    length, state = (tokens.shape[1] - 1) // 3, model.start(tokens.shape[0], 0)
    hidden, memories, losses = [], [], []
    for begin in range(0, 3 * length, length):
        piece = tokens[:, begin : begin + length + 1]
        before = list(state.tensors)
        hidden.append(model.features(piece[:, :-1], state).transpose(0, 1))
        state.tensors = before
        losses.append(model.nll(piece[:, :-1], piece[:, 1:], state).mean())
        *kept, seen = state.tensors
        newest = int(seen[0])
        memories.append(torch.stack([memory[:, memory.shape[1] - newest :].transpose(0, 1) for memory in kept]))
    return hidden, memories, losses


def _run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    hidden, memories, _ = _segments(model, **inputs)
    return {"hidden": hidden, "memories": memories}


def losses(model: nn.Module, tokens: Tensor) -> dict[str, Any]:
    """Mean nats of each segment, and their sum."""
    found = _segments(model, tokens)[2]
    return {"loss": found, "total": sum(found)}


ADAPTER = Adapter(stored=_as_ours, run=_run)
