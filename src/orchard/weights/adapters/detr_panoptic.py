"""Panoptic DETR's references: DETR's, and of the full size the stored parts of what is too large to be stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.adapters.detr import call, padded


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    found = model(**inputs)
    layers = found.detections
    return {
        "logits": layers.logits,
        "boxes": layers.boxes,
        "masks": found.masks,
        "auxiliary": layers.auxiliary,
        "first_masks": found.masks[:, :10],
        "mask_means": found.masks.mean((2, 3)),
    }


ADAPTER = Adapter(call=call, stored=padded, run=run)
