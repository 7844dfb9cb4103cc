"""Classifiers with auxiliary ones inside: what all of them say, with norms and dropout as in evaluation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from orchard.weights.adapters import Adapter


def call(module: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """torchvision gives auxiliary logits in training only: the outermost module, and no other, is put into it."""
    module.training = True
    try:
        return module(inputs["images"])
    finally:
        module.training = False


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    classifier: Any = model
    logits, auxiliaries = classifier.forward_with_auxiliaries(inputs["images"])
    return {"logits": logits, "auxiliaries": auxiliaries}


ADAPTER = Adapter(call=call, run=run)
