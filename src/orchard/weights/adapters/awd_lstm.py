"""awd-lstm-lm: tokens stand time by time; a text is read in segments, the state carried from one to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.activation_regularisation import activation_penalty
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

SEGMENT = 6  # tokens
ALPHA, BETA = 2.0, 1.0  # of the loss that is stored


def _as_ours(stored: Stored) -> Stored:
    """Batch first, and names without that of the module which has network and criterion."""
    tokens = {"in.tokens": stored.tensors["in.stream"].T.contiguous()}
    tensors = {name.replace("out.grad.model.", "out.grad."): tensor for name, tensor in stored.tensors.items()}
    state = {name.removeprefix("model."): tensor for name, tensor in stored.state.items()}
    return replace(stored, tensors=tensors | tokens, state=state)


def _segments(model: Any, tokens: Tensor) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Any]:
    """Of each segment its targets and the last layer's outputs, with dropout and without; the last state."""
    state = model.start(tokens.shape[0], SEGMENT)
    found = []
    for begin in range(0, tokens.shape[1] - 1, SEGMENT):
        piece = tokens[:, begin : begin + SEGMENT + 1]
        found.append((piece[:, 1:], *model.hidden(piece[:, :-1], state)))
        state.tensors = [tensor.detach() for tensor in state.tensors]
    return found, state


def _flat(tensor: Tensor) -> Tensor:
    """(B, T, ...) time by time, (T * B, ...)."""
    return tensor.transpose(0, 1).flatten(0, 1)


def _run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    found, state = _segments(model, **inputs)
    logits: Any = model.logits
    last = [tensor[None] for tensor in state.tensors]
    tensors = len(last) // model.config.depth  # type: ignore[union-attr, operator]
    return {
        "output": [_flat(dropped) for _, dropped, _ in found],
        "logits": _flat(logits(found[-1][1])),
        "h": last[::tensors],
        "c": last[1::tensors],
        "raw": found[0][2].transpose(0, 1),
    }


def losses(model: Any, tokens: Tensor) -> dict[str, Any]:
    """The mean nats of each segment, alone and with what regularises activations, and the sum of the latter."""
    raw, regularised = [], []
    for targets, dropped, outputs in _segments(model, tokens)[0]:
        raw.append(F.cross_entropy(model.logits(dropped).flatten(0, 1), targets.flatten()))
        regularised.append(raw[-1] + activation_penalty(dropped, outputs, ALPHA, BETA))
    return {"raw": raw, "regularised": regularised, "total": sum(regularised)}


ADAPTER = Adapter(stored=_as_ours, run=_run)
