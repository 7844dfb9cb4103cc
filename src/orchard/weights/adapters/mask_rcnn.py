"""torchvision's Mask R-CNN at small widths: what Faster R-CNN's adapter compares, masks, and masks on their images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from orchard.models.detection.masks import paste_mask
from orchard.weights.adapters import Adapter, faster_rcnn


def build(
    *, norm: bool, width: int, hidden: int, classes: int, sizes: list[int], mask_width: int, **settings: Any
) -> nn.Module:
    layers = [mask_width] * 4
    return MaskRCNN(
        **faster_rcnn.parts(norm, width, hidden, classes, sizes),
        mask_head=MaskRCNNHeads(width, layers, 1, norm_layer=nn.BatchNorm2d if norm else None),
        mask_predictor=MaskRCNNPredictor(mask_width, mask_width, classes + 1), **settings,
    )  # fmt: skip


def targets(config: Any, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Boxes and labels of three objects on each image, and masks of noise, (B, 3, H, W)."""
    found = faster_rcnn.targets(config, inputs, generator)
    count, _, height, width = inputs["images"].shape
    coarse = torch.rand(count, 3, height // 8, width // 8, generator=generator)
    masks = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return found | {"masks": (masks > 0.5).to(torch.uint8)}


def call(module: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    found, answers = faster_rcnn.compute(module, tensors)
    masks = [one["masks"][:, 0] for one in answers]
    sides = [(int(one.any(1).sum()), int(one.any(0).sum())) for one in ~tensors["padding_mask"]]
    pasted = [one["masks"][:, 0] for one in module.transform.postprocess(answers, sides, sides)]
    return found | {"masks": pad_sequence(masks, batch_first=True), "pasted": pasted}


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The same of ours."""
    said = model(**inputs)
    answers = said.found(said.seen)
    pasted = [
        torch.stack([paste_mask(*one, tuple(size)) for one in zip(found.masks, found.boxes, strict=True)])
        for found, size in zip(answers, said.seen.tolist(), strict=True)
    ]
    masks = pad_sequence([one.masks for one in answers], batch_first=True)
    return faster_rcnn.shares(said) | {"masks": masks, "pasted": pasted}


ADAPTER = Adapter(build=build, call=call, run=run, targets=targets)
