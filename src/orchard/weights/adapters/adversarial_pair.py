"""Adversarial pairs in evaluation mode: what both networks give."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from orchard.weights.adapters import Adapter


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images of noise, scores of images, and their sigmoid, which some official discriminators end in."""
    pair: Any = model
    scores = pair.discriminator(inputs["images"])
    return {"images": pair(inputs["noise"]), "scores": scores, "probabilities": scores.sigmoid()}


ADAPTER = Adapter(run=run)
