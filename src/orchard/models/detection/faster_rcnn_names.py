"""The names of Faster R-CNN's tensors in torchvision's files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from orchard.models import Rule
from orchard.models.vision.trunk import trunk_names

if TYPE_CHECKING:
    from orchard.models.detection.faster_rcnn import FasterRCNNConfig

Table = list[Rule | tuple[str, str]]


def torchvision_names(config: FasterRCNNConfig) -> Table:
    """torchvision from 0.13 on."""
    return _names(config, ".0", ".{}.0")


def first_torchvision_names(config: FasterRCNNConfig) -> Table:
    """torchvision before 0.13, which wrote the released weights of fasterrcnn_resnet50_fpn."""
    return _names(config, "", "")


def _names(config: FasterRCNNConfig, pyramid: str, proposal: str) -> Table:
    """`pyramid` and `proposal`: what follows the names of the convolutions there."""
    fpn, head = "backbone.fpn.", "roi_heads.box_head."
    convolutions = "proposal_head.convolutions.{}" if "{}" in proposal else "proposal_head.convolutions.0"
    if config.norm:
        pyramids: Table = [
            ("pyramid.lateral.{}", f"{fpn}inner_blocks.{{}}"),
            ("pyramid.output.{}", f"{fpn}layer_blocks.{{}}"),
        ]
    else:
        pyramids = [
            ("pyramid.lateral.{}.0.{}", f"{fpn}inner_blocks.{{}}{pyramid}.{{}}"),
            ("pyramid.output.{}.0.{}", f"{fpn}layer_blocks.{{}}{pyramid}.{{}}"),
        ]
    if config.region_convolutions:  # torchvision's numbers count the flattening, and the activations behind layers
        behind = config.region_convolutions + 1
        layers = [(f"region_head.layers.{n}.{{}}", f"{head}{behind + 2 * n}.{{}}") for n in range(config.region_layers)]
    else:
        layers = [(f"region_head.layers.{n}.{{}}", f"{head}fc{6 + n}.{{}}") for n in range(config.region_layers)]
    predictor = "roi_heads.box_predictor."
    return [
        *trunk_names(config, "torchvision", "backbone.body."),
        *pyramids,
        (f"{convolutions}.{{}}", f"rpn.head.conv{proposal}.{{}}"),
        ("proposal_head.objectness.{}", "rpn.head.cls_logits.{}"),
        ("proposal_head.deltas.{}", "rpn.head.bbox_pred.{}"),
        ("region_head.convolutions.{}", f"{head}{{}}"),
        *layers,
        background_last("predictor.classes.{}", f"{predictor}cls_score.{{}}", 1),
        background_last("predictor.boxes.{}", f"{predictor}bbox_pred.{{}}", 4),
    ]


def background_last(ours: str, theirs: str, rows: int) -> Rule:
    """torchvision's first class is background, ours the last; `rows` of a matrix belong to one class."""

    def join(tensor: Tensor) -> Tensor:
        classes = tensor.reshape(-1, rows, *tensor.shape[1:]) if rows > 1 else tensor
        return classes.roll(-1, 0)

    def split(tensor: Tensor) -> tuple[Tensor, ...]:
        classes = tensor.roll(1, 0)
        return (classes.flatten(0, 1) if rows > 1 else classes,)

    return Rule(ours, (theirs,), join, split)


def infer_config(config: FasterRCNNConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The number of classes (background is one more), and the epsilon that the first released weights want."""
    bias = lookup("predictor.classes.bias")
    found: dict[str, Any] = {} if bias is None else {"num_classes": len(bias) - 1}
    return found | ({"frozen_norm_eps": 0.0} if source == "torchvision_first" else {})


NAMES: dict[str, Callable[[Any], Table]] = {
    "torchvision": torchvision_names,
    "torchvision_first": first_torchvision_names,
}
