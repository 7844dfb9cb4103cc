"""Networks that give the noise, from which the clean image is made outside and cut to [0, 1]."""

from __future__ import annotations

from torch import Tensor, nn

from orchard.weights.adapters import Adapter


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ours takes from the images, and the clean images."""
    clean: Tensor = model(inputs["images"])
    return {"noise": inputs["images"] - clean, "clean": clean.clamp(0, 1)}


ADAPTER = Adapter(run=run)
