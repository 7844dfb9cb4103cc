"""adaptive-span: a text is read block by block with the caches of one handed to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from orchard.nn.adaptive_softmax import target_nats
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

BLOCKS, KEPT = 3, 12  # blocks of a stored text; of longer caches this many newest positions are stored


def _blocks(model: Any, tokens: Tensor) -> tuple[list[Tensor], list[list[Tensor]], list[Tensor]]:
    """Of each block the log-probabilities, the caches after it and the mean nats."""
    length, state = (tokens.shape[1] - 1) // BLOCKS, model.start(tokens.shape[0], 0)
    scores, caches, nats = [], [], []
    for begin in range(0, BLOCKS * length, length):
        piece = tokens[:, begin : begin + length + 1]
        scores.append(model.step(piece[:, :-1], state).log_softmax(-1))
        caches.append([tensor[:, -KEPT:] for tensor in state.tensors])
        nats.append(target_nats(scores[-1], piece[:, 1:], lambda _, known: known, ()).mean())
    return scores, caches, nats


def _run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    scores, caches, _ = _blocks(model, **inputs)
    return {"scores": scores, "caches": caches}


def losses(model: Any, tokens: Tensor) -> dict[str, Any]:
    """The sum over the blocks of mean nats and what spans cost, and that cost."""
    cost = model.penalty()
    return {"total": sum(_blocks(model, tokens)[2]) + BLOCKS * cost, "span": cost}


def _as_ours(stored: Stored) -> Stored:
    return replace(stored, tensors={**stored.tensors, "in.tokens": stored.tensors["in.stream"]})


ADAPTER = Adapter(stored=_as_ours, run=_run)
