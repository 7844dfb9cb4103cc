"""torchvision's FCN: its own trunk would be downloaded unless it is told not to, which TOML has no word for."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from orchard.models.segmentation.contract import segment_with_auxiliaries
from orchard.weights.adapters import Adapter


def build(layers: int, **settings: Any) -> nn.Module:
    from torchvision.models import segmentation

    module: nn.Module = getattr(segmentation, f"fcn_resnet{layers}")(weights=None, weights_backbone=None, **settings)
    return module


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    logits, auxiliaries = segment_with_auxiliaries(model, inputs["images"])
    return {"logits": logits, "auxiliaries": auxiliaries}


ADAPTER = Adapter(build=build, run=run)
