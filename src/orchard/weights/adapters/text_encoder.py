"""Text encoders beside transformers': masks are bool here, and both ends of an answer are one tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    mask = case.tensors["in.attention_mask"]
    return replace(case, tensors={**case.tensors, "in.attention_mask": mask.bool()})


def run(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """The output; of question answering the logits of both ends, of features also what stands for the text."""
    encoder: Any = model
    result = encoder(**inputs)
    if encoder.config.head == "question-answering":
        return {"begin": result[..., 0], "end": result[..., 1]}
    if encoder.config.head == "feature-extraction":
        return {"hidden": result, "pooled": encoder.summary(result)}
    return result


ADAPTER = Adapter(stored=stored, run=run)
