"""The names of Mask R-CNN's tensors in torchvision's files: those of Faster R-CNN, and of the mask head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchard.models.detection import faster_rcnn_names
from orchard.models.detection.faster_rcnn_names import Table, background_last
from orchard.models.detection.faster_rcnn_names import infer_config as infer_config

if TYPE_CHECKING:
    from orchard.models.detection.mask_rcnn import MaskRCNNConfig

HEAD, PREDICTOR = "roi_heads.mask_head.", "roi_heads.mask_predictor."


def torchvision_names(config: MaskRCNNConfig) -> Table:
    """torchvision from 0.13 on."""
    head: Table = [("mask_head.convolutions.{}", f"{HEAD}{{}}")]
    return [*faster_rcnn_names.torchvision_names(config), *head, *_predictor()]


def first_torchvision_names(config: MaskRCNNConfig) -> Table:
    """torchvision before 0.13, which wrote the released weights of maskrcnn_resnet50_fpn."""
    head: Table = [
        (f"mask_head.convolutions.{n}.0.{{}}", f"{HEAD}mask_fcn{n + 1}.{{}}") for n in range(config.mask_convolutions)
    ]
    return [*faster_rcnn_names.first_torchvision_names(config), *head, *_predictor()]


def _predictor() -> Table:
    return [
        ("mask_head.upsample.{}", f"{PREDICTOR}conv5_mask.{{}}"),
        background_last("predictor.masks.{}", f"{PREDICTOR}mask_fcn_logits.{{}}", 1),
    ]


NAMES: dict[str, Callable[[Any], Table]] = {
    "torchvision": torchvision_names,
    "torchvision_first": first_torchvision_names,
}
