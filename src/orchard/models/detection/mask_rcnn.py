"""Mask R-CNN (He et al. 2017, arXiv:1703.06870) on a feature pyramid.

Faster R-CNN with a third answer for every region: beside its class and its box a small convolutional network says which
pixels belong to the object, for each class apart, so that classes do not compete for pixels. In training it looks at
the sampled proposals that are objects, in answers at the boxes that were chosen. Sizes and constants are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.detection import faster_rcnn
from orchard.models.detection.contract import example
from orchard.models.detection.faster_rcnn import FasterRCNN, FasterRCNNConfig, Seen, build_trunk
from orchard.models.detection.mask_rcnn_names import NAMES, infer_config
from orchard.models.detection.masks import MaskedRegions, mask_loss, with_masks
from orchard.models.vision.trunk import Trunk
from orchard.nn.regions import MaskHead, pool_regions


@dataclass(frozen=True)
class MaskRCNNConfig(FasterRCNNConfig):
    mask_convolutions: int = 4
    mask_width: int = 256  # channels of the mask head
    mask_region: int = 14  # cells a side of what it looks at; masks have twice as many


class MaskRCNN(FasterRCNN):
    """Pictures (B, C, H, W), normalised, padded to one size, to `MaskedRegions`.

    A Faster R-CNN in names and weights too: what trains, freezes or exchanges a trunk or a head treats it as one.
    """

    loss_names = (*FasterRCNN.loss_names, "mask")

    def __init__(self, config: MaskRCNNConfig, trunk: Trunk):
        super().__init__(config, trunk)
        norm = nn.BatchNorm2d if config.norm else None
        self.mask_region = config.mask_region
        self.mask_head = MaskHead(config.width, config.mask_width, config.mask_convolutions, norm)
        masks = nn.Conv2d(config.mask_width, config.num_classes + 1, 1)
        nn.init.kaiming_normal_(masks.weight, mode="fan_out", nonlinearity="relu")
        self.predictor["masks"] = masks

    def losses(
        self, images: Tensor, padding_mask: Tensor | None, boxes: Sequence[Tensor], labels: Sequence[Tensor],
        generator: torch.Generator | None = None, masks: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:  # fmt: skip
        """Those of Faster R-CNN, and that of the masks (section 3). `masks` are (N, H, W) for each picture, of the size
        of `images`; ValueError where they are not."""
        return self._all_losses(self._see(images, padding_mask), boxes, labels, generator, masks, images.shape[2:])

    def judge(
        self, images: Tensor, padding_mask: Tensor | None, boxes: Sequence[Tensor], labels: Sequence[Tensor],
        generator: torch.Generator | None = None, masks: Sequence[Tensor] = (),
    ) -> tuple[MaskedRegions, dict[str, Tensor]]:  # fmt: skip
        seen = self._see(images, padding_mask)
        return self._answer(seen), self._all_losses(seen, boxes, labels, generator, masks, images.shape[2:])

    def _all_losses(
        self, seen: Seen, boxes: Sequence[Tensor], labels: Sequence[Tensor], generator: torch.Generator | None,
        masks: Sequence[Tensor], size: Sequence[int],
    ) -> dict[str, Tensor]:  # fmt: skip
        wanted = [(len(one), *size) for one in boxes]
        if [tuple(one.shape) for one in masks] != wanted:
            found = [tuple(one.shape) for one in masks]
            raise ValueError(f"expected masks of shapes {wanted}, one for each object of each picture, got {found}")
        losses, sample = self._learn(seen, boxes, labels, generator)
        logits = self._draw(seen, sample.boxes[sample.objects], sample.pictures[sample.objects])
        return losses | {"mask": mask_loss(logits, sample, masks)}

    def _answer(self, seen: Seen) -> MaskedRegions:
        regions = super()._answer(seen)
        chosen = regions.chosen()
        boxes, labels = torch.cat([one.boxes for one in chosen]), torch.cat([one.labels for one in chosen])
        pictures = torch.cat([torch.full_like(one.labels, n) for n, one in enumerate(chosen)])
        logits = self._draw(seen, boxes, pictures)
        own = logits[torch.arange(len(labels), device=labels.device), labels]
        return with_masks(regions, chosen, own)

    def _draw(self, seen: Seen, boxes: Tensor, pictures: Tensor) -> Tensor:
        """Masks of regions (N, 4) of pictures (N,), for every class and background: logits (N, K + 1, M, M)."""
        regions = pool_regions(seen.maps[:-1], self.strides, boxes, pictures, self.mask_region)
        logits: Tensor = self.predictor["masks"](self.mask_head(regions))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        *before, regions, predictor = super().layer_groups()
        return [*before, (*regions, "mask_head."), predictor]


def build(config: MaskRCNNConfig) -> MaskRCNN:
    return MaskRCNN(config, build_trunk(config))


def _with_masks(name: str, **changes: Any) -> MaskRCNNConfig:
    """A variant of Faster R-CNN with a mask head."""
    return MaskRCNNConfig(**vars(faster_rcnn.VARIANTS[name]) | changes)


VARIANTS = {
    "maskrcnn_resnet50_fpn": _with_masks("fasterrcnn_resnet50_fpn"),
    "maskrcnn_resnet50_fpn_v2": _with_masks("fasterrcnn_resnet50_fpn_v2"),
    # ours: a small head, and as many answers as scenes of a few objects need
    "mask_rcnn_nano": _with_masks("faster_rcnn_nano", mask_convolutions=2, mask_width=32, most_answers=20),
}
LANDMARK = Landmark(
    model=build, variants=VARIANTS, names=NAMES, infer_config=infer_config, first_class=1, example=example
)
