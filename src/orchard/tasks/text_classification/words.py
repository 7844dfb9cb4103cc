"""What each word of a text did for an answer: integrated gradients from padding to the word (Sundararajan et al. 2017,
arXiv:1703.01365)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.text_inputs import TextInputs

STEPS = 16  # of the integral
MOST = 160  # tokens of a text that are shown


@dataclass(frozen=True)
class Word:
    """A token as text, and its share in the answer, -1 to 1 where 1 is the largest of the text."""

    text: str
    share: float


def why_not(model: nn.Module) -> str:
    """What stands in the way of `attribute`, in a line; nothing where it can be done."""
    if not isinstance(getattr(model, "token", None), nn.Embedding):
        return f"{type(model).__name__} looks no words up in a table, by which it is found how much each counts"
    if importlib.util.find_spec("captum") is None:
        return "how much each word counts is found with captum; install it with: pip install 'orchard[explain]'"
    return ""


def attribute(model: nn.Module, inputs: TextInputs, text: str, pair: str | None, column: int) -> tuple[Word, ...]:
    """The words of a text with their shares in output `column`; none where `why_not` says that it cannot be done."""
    if why_not(model):
        return ()
    from captum.attr import LayerIntegratedGradients

    table: Any = model.token
    row = inputs.encode(text, pair)
    tokens, segments = inputs.batch([row])
    device = table.weight.device
    ids, mask, segments = tokens.values.to(device), tokens.mask.to(device), segments.to(device)

    def output(ids: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        return model(ids, mask, segments)  # type: ignore[no-any-return]

    method = LayerIntegratedGradients(output, table)
    with torch.enable_grad():
        found: Any = method.attribute(
            ids, baselines=torch.full_like(ids, inputs.pad), target=column, additional_forward_args=(mask, segments),
            n_steps=STEPS,
        )  # fmt: skip
    shares = found.sum(-1)[0].detach().float().cpu()
    shares = shares / shares.abs().max().clamp_min(1e-12)
    special = set(inputs.tokenizer.specials.values()) - {inputs.tokenizer.specials.get("unknown")}
    words = [
        Word(inputs.tokenizer.decode([token]) or "?", round(float(share), 3))
        for token, share in zip(row.ids, shares, strict=True)
        if token not in special
    ]
    return tuple(words[:MOST])
