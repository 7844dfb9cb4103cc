"""torchvision's Faster R-CNN at small widths: answers, proposals and what leads to them, and the losses of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d, box_convert
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from orchard.weights.adapters import Adapter

NARROWER = 16  # than the stages of torchvision's ResNet


class NarrowResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with narrow stages behind its own stem; no argument of it says that."""

    def _make_layer(self, block: Any, planes: int, *more: Any, **named: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // NARROWER, *more, **named)


def parts(norm: bool, width: int, hidden: int, classes: int, sizes: list[int]) -> dict[str, Any]:
    """As torchvision's constructors choose them: the first without `norm`, the second ("v2") with it."""
    trunk = NarrowResNet(Bottleneck, [1, 1, 1, 1], norm_layer=nn.BatchNorm2d if norm else FrozenBatchNorm2d)
    channels = [4 * 64 * 2**stage // NARROWER for stage in range(4)]
    stages = {f"layer{stage + 1}": str(stage) for stage in range(4)}
    kind = nn.BatchNorm2d if norm else None
    backbone = BackboneWithFPN(trunk, stages, channels, width, LastLevelMaxPool(), norm_layer=kind)
    anchors = AnchorGenerator(tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * len(sizes))
    if norm:
        head: nn.Module = FastRCNNConvFCHead((width, 7, 7), [width] * 2, [hidden], norm_layer=nn.BatchNorm2d)
    else:
        head = TwoMLPHead(width * 49, hidden)
    return {
        "backbone": backbone, "rpn_anchor_generator": anchors, "rpn_head": RPNHead(width, 3, conv_depth=1 + norm),
        "box_head": head, "box_predictor": FastRCNNPredictor(hidden, classes + 1),
    }  # fmt: skip


def build(*, norm: bool, width: int, hidden: int, classes: int, sizes: list[int], **settings: Any) -> nn.Module:
    return FasterRCNN(**parts(norm, width, hidden, classes, sizes), **settings)


def targets(config: Any, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Three objects on each image: boxes (B, 3, 4) and labels (B, 3)."""
    count = len(inputs["images"])
    middles, sides = torch.rand(2, count, 3, 2, generator=generator)
    boxes = torch.cat([0.3 + 0.4 * middles, 0.1 + 0.4 * sides], -1)
    return {"boxes": boxes, "labels": torch.randint(config.num_classes, (count, 3), generator=generator)}


def call(module: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return compute(module, tensors)[0]


def compute(module: Any, tensors: dict[str, Tensor]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """What its `forward` does behind the resizing, with what it passes on, and its answers as they are; statistics of
    norms stay as they are."""
    images, real = tensors["images"], ~tensors["padding_mask"]
    sides = [(int(one.any(1).sum()), int(one.any(0).sum())) for one in real]
    edges = torch.tensor(sides).flip(1).repeat(1, 2).float()  # (B, 4)
    down, right = (-side % 32 for side in images.shape[2:])
    batch = ImageList(nn.functional.pad(images, (0, right, 0, down)), sides)
    maps = module.backbone(batch.tensors)
    losses = {}
    if "boxes" in tensors:
        corners = box_convert(tensors["boxes"], "cxcywh", "xyxy") * edges[:, None]
        objects = [{"boxes": b, "labels": n} for b, n in zip(corners, tensors["labels"] + 1, strict=True)]
        if "masks" in tensors:
            objects = [one | {"masks": mine} for one, mine in zip(objects, tensors["masks"], strict=True)]
        module.rpn.training = module.roi_heads.training = True  # of these two alone, so that norms do not change
        proposals, losses = module.rpn(batch, maps, objects)
        losses |= module.roi_heads(maps, proposals, sides, objects)[1]
        module.rpn.training = module.roi_heads.training = False
    said = concat_box_prediction_layers(*module.rpn.head(list(maps.values())))
    objectness, deltas = (one.view(len(images), -1, *one.shape[1:]) for one in said)
    proposals, _ = module.rpn(batch, maps)
    regions = module.roi_heads.box_head(module.roi_heads.box_roi_pool(maps, proposals, sides))
    logits, differences = module.roi_heads.box_predictor(regions)
    counts = [len(one) for one in proposals]
    answers = module.roi_heads(maps, proposals, sides)[0]
    return {
        "objectness": objectness.squeeze(-1),
        "anchor_deltas": deltas,
        "proposals": [one / edge for one, edge in zip(proposals, edges, strict=True)],
        "region_logits": list(logits.roll(-1, 1).split(counts)),
        "region_deltas": list(differences.unflatten(1, (-1, 4)).roll(-1, 1).split(counts)),
        "scores": pad_sequence([one["scores"] for one in answers], batch_first=True),
        "labels": pad_sequence([one["labels"] - 1 for one in answers], batch_first=True),
        "boxes": pad_sequence([one["boxes"] / e for one, e in zip(answers, edges, strict=True)], batch_first=True),
        "losses": {name.removeprefix("loss_"): loss for name, loss in losses.items()},
    }, answers


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    return shares(model(**inputs))


def shares(said: Any) -> dict[str, Any]:
    """The same of ours: boxes as shares of the image, and of each image only the proposals that there are."""
    places = said.proposals / said.seen.flip(1).repeat(1, 2)[:, None]
    answers = said.found(torch.ones_like(said.seen))
    columns = {"proposals": places, "region_logits": said.region_logits, "region_deltas": said.region_deltas}
    return {
        "objectness": said.objectness,
        "anchor_deltas": said.anchor_deltas,
        **{name: [one[n] for one, n in zip(rows, said.proposed, strict=True)] for name, rows in columns.items()},
        **{
            name: pad_sequence([getattr(one, name) for one in answers], batch_first=True)
            for name in ("scores", "labels", "boxes")
        },
    }


ADAPTER = Adapter(build=build, call=call, run=run, targets=targets)
