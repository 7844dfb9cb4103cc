"""Image GPT's golden cases: OpenAI's code is given colours and shifts them itself; what layers hold is compared, too.

OpenAI's cases have that at every position, transformers' has the mean over positions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    """Ids in int64; of what is to be masked, which pixels; of what layers hold at every position, the mean."""
    tensors = {key: one.long() if one.dtype == torch.int32 else one for key, one in case.tensors.items()}
    if "in.uniform" in tensors:
        tensors["in.masked"] = tensors["in.uniform"] <= case.meta["constructor"]["bert_mask_prob"]
    held = ("out.ln_1_of_layer_", "out.ln_f_out")
    tensors |= {key: one.mean(1) for key, one in tensors.items() if key.startswith(held)}
    state = {key: one for key, one in case.state.items() if key not in ("model/clf/wclf", "classifier_score.weight")}
    return replace(case, tensors=tensors, state=state)


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Logits, and the features of all layers."""
    pixels: Any = model
    if "tokens" in inputs:
        tokens = inputs["tokens"]
    elif "masked" in inputs:
        tokens = inputs["colours"].masked_fill(inputs["masked"], pixels.config.special)
    else:
        tokens = pixels.as_input(inputs["colours"])
    return {"logits": pixels(tokens), "layers": list(pixels.layer_features(tokens).unbind(1))}


ADAPTER = Adapter(stored=stored, run=run)
