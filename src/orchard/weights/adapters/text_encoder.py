"""Text encoders beside transformers': masks are bool here, and both ends of an answer are one tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    """NEZHA's code leaves out labels of -1, all others those of -100."""
    tensors = dict(case.tensors)
    tensors["in.attention_mask"] = tensors["in.attention_mask"].bool()
    if "in.masked_lm_labels" in tensors:
        labels = tensors["in.masked_lm_labels"]
        tensors["in.masked_lm_labels"] = labels.where(labels != -1, -100)
    return replace(case, tensors=tensors)


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
