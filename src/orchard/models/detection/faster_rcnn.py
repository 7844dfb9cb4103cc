"""Faster R-CNN on a feature pyramid (Ren et al. 2015, arXiv:1506.01497; Lin et al. 2017, arXiv:1612.03144).

A trunk and a pyramid make maps of the picture. A small network slides over them and says of boxes of fixed shapes, the
anchors, whether an object is there and how its box differs; what it proposes is cut from the maps, and a second network
says which object that is and corrects the box once more. Sizes and constants are torchvision's. Legend: B pictures, A
anchors, P proposals, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from orchard.errors import UsageError
from orchard.models import Landmark
from orchard.models.detection.contract import check_padding, example
from orchard.models.detection.faster_rcnn_names import NAMES, infer_config
from orchard.models.detection.neck import NECKS, make_neck
from orchard.models.detection.regions import (
    ANCHOR_WEIGHTS,
    Regions,
    RegionSample,
    proposal_losses,
    region_losses,
    sample_regions,
)
from orchard.models.vision.trunk import Settings, Trunk, create_trunk, freeze_batch_norms, frozen_settings
from orchard.nn.anchors import cell_anchors, grid_anchors
from orchard.nn.box_coding import decode_boxes
from orchard.nn.checks import check_images
from orchard.nn.regions import ClassBoxes, ProposalHead, RegionHead, clip_boxes, pool_regions, suppress


@dataclass(frozen=True)
class FasterRCNNConfig:
    trunk: str = "resnet50"  # a classifier's name
    trunk_settings: Settings | Mapping[str, Any] = ()  # fields of its configuration that differ from that name's
    frozen_norm: bool = True  # the trunk's batch norms are constants, as of a trunk that was trained before
    frozen_norm_eps: float = 1e-5  # what these add to variances; 0 in torchvision's first weights
    neck: str = "fpn"  # a feature pyramid, or "fpt", a feature pyramid transformer
    levels: int = 4  # of the trunk's resolutions, the coarsest ones; the pyramid adds one
    width: int = 256  # channels of the pyramid
    norm: bool = False  # batch norms behind convolutions of the pyramid and of the region head
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # pixels, one for each level of the pyramid
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height to width
    proposal_convolutions: int = 1
    candidates: tuple[int, int] = (2000, 1000)  # of each level, before suppression: in training, in answers
    proposals: tuple[int, int] = (2000, 1000)  # of a picture, behind it
    anchor_samples: int = 256  # of a picture, that a step learns from; up to half are objects
    region_samples: int = 512  # up to a quarter are objects
    region_convolutions: int = 0
    region_layers: int = 2  # fully connected
    hidden: int = 1024  # units in each of them
    least_score: float = 0.05  # probability from which an object is answered
    most_answers: int = 100  # of a picture
    image_size: int | tuple[int, int] = (800, 1066)  # what sizes are counted at; pictures may have any
    in_channels: int = 3
    num_classes: int = 90  # background is one more

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))
        for name in ("levels", "proposal_convolutions", "region_layers", "most_answers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.neck not in NECKS:
            raise ValueError(f"neck is one of {', '.join(NECKS)}, got {self.neck!r}")
        if len(self.anchor_sizes) != self.levels + 1:
            raise ValueError(
                f"anchor_sizes has {len(self.anchor_sizes)} numbers, expected levels + 1 = {self.levels + 1}"
            )


@dataclass(frozen=True)
class Seen:
    """A batch as trunk and proposal network see it: what answers and losses are both made from.

    Lists have an entry for each level of the pyramid.
    """

    maps: list[Tensor]  # (B, D, H, W)
    sizes: Tensor  # (B, 2) int64, heights and widths of the pictures without padding
    objectness: list[Tensor]  # (B, A), logits
    deltas: list[Tensor]  # (B, A, 4)
    anchors: list[Tensor]  # (A, 4), pixels


class FasterRCNN(nn.Module):
    """Pictures (B, C, H, W), normalised, padded to one size, to `Regions`."""

    head_name = "predictor"
    loss_names: tuple[str, ...] = ("objectness", "rpn_box_reg", "classifier", "box_reg")
    region_size = 7

    def __init__(self, config: FasterRCNNConfig, trunk: Trunk):
        super().__init__()
        self.config = c = config
        self.trunk: Trunk = trunk
        self.used = used_maps(trunk.strides, c)
        self.strides = tuple(trunk.strides[n] for n in self.used)
        norm = nn.BatchNorm2d if c.norm else None
        self.pyramid = make_neck(c.neck, [trunk.channels[n] for n in self.used], self.strides, c.width, norm)
        self.proposal_head = ProposalHead(c.width, len(c.anchor_ratios), c.proposal_convolutions)
        self.region_head = RegionHead(
            c.width, self.region_size, c.region_convolutions, [c.hidden] * c.region_layers, norm
        )
        linear, boxes = nn.Linear(c.hidden, c.num_classes + 1), ClassBoxes(c.hidden, c.num_classes + 1)
        self.predictor = nn.ModuleDict({"classes": linear, "boxes": boxes})

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Regions:
        """`padding_mask` (B, H, W) bool is true where there is no picture; none: pictures without padding."""
        return self._answer(self._see(images, padding_mask))

    def losses(
        self, images: Tensor, padding_mask: Tensor | None, boxes: Sequence[Tensor], labels: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Those of `OwnLosses`: of a sample of anchors (arXiv:1506.01497, equation 1), and of one of proposals."""
        return self._learn(self._see(images, padding_mask), boxes, labels, generator)[0]

    def judge(
        self, images: Tensor, padding_mask: Tensor | None, boxes: Sequence[Tensor], labels: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> tuple[Regions, dict[str, Tensor]]:  # fmt: skip
        """What `forward` answers, and the losses, from one pass through the trunk."""
        seen = self._see(images, padding_mask)
        return self._answer(seen), self._learn(seen, boxes, labels, generator)[0]

    def dense_maps(self, images: Tensor) -> list[Tensor]:
        """Of pictures whose sides are multiples of the largest stride, with L levels of the pyramid:

        L maps (B, D, H, W), then L times the objectness (B, A) of its anchors, then L times their deltas (B, A, 4).
        """
        found = self.trunk.feature_maps(images)
        maps = self.pyramid([found[n] for n in self.used])
        objectness, deltas = self.proposal_head(maps)
        return [*maps, *objectness, *deltas]

    def _see(self, images: Tensor, padding_mask: Tensor | None) -> Seen:
        """The dense maps of pictures padded to multiples of the largest stride, with their anchors and own sizes."""
        check_images(images, self.config.in_channels)
        if padding_mask is None:
            padding_mask = torch.zeros_like(images[:, 0], dtype=torch.bool)
        check_padding(padding_mask, images)
        sizes = torch.stack([(~padding_mask).any(2).sum(1), (~padding_mask).any(1).sum(1)], 1)
        down, right = (-side % self.strides[-1] for side in images.shape[2:])
        dense = self.dense_maps(F.pad(images, (0, right, 0, down)))
        levels = len(self.config.anchor_sizes)
        maps, objectness, deltas = (dense[start : start + levels] for start in range(0, len(dense), levels))
        said = [one.float() for one in objectness], [one.float() for one in deltas]
        return Seen(maps, sizes, *said, self._anchors(maps))

    def _answer(self, seen: Seen) -> Regions:
        c = self.config
        proposals, proposed = self._propose(seen, training=False)
        pictures = torch.arange(len(proposed), device=proposed.device)[:, None].expand(proposed.shape)
        logits, boxes = self._look(seen.maps, proposals.flatten(0, 1), pictures.flatten())
        by_picture = proposed.shape
        return Regions(
            torch.cat(seen.objectness, 1), torch.cat(seen.deltas, 1), proposals, proposed,
            logits.view(*by_picture, -1), boxes.view(*by_picture, -1, 4), seen.sizes, c.least_score, c.most_answers,
        )  # fmt: skip

    def _learn(
        self, seen: Seen, boxes: Sequence[Tensor], labels: Sequence[Tensor], generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], RegionSample]:
        """The losses, and the regions that those of the second network are of."""
        c = self.config
        proposals, proposed = self._propose(seen, training=True)
        scale = seen.sizes.flip(1).repeat(1, 2)
        objects = [box_convert(one, "cxcywh", "xyxy") * sides for one, sides in zip(boxes, scale, strict=True)]
        said = torch.cat(seen.objectness, 1), torch.cat(seen.deltas, 1), torch.cat(seen.anchors)
        first = proposal_losses(*said, objects, c.anchor_samples, generator)
        regions = [one[real] for one, real in zip(proposals, proposed, strict=True)]
        sample = sample_regions(regions, objects, labels, c.region_samples, c.num_classes, generator)
        second = region_losses(*self._look(seen.maps, sample.boxes, sample.pictures), sample)
        return first | second, sample

    def _anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Where the anchors of each level are, (A, 4) in pixels."""
        height, width = (self.strides[0] * side for side in maps[0].shape[2:])
        return [
            grid_anchors(cell_anchors(size, self.config.anchor_ratios).to(one.device), one.shape[2:], (height, width))
            for size, one in zip(self.config.anchor_sizes, maps, strict=True)
        ]

    @torch.no_grad()
    def _propose(self, seen: Seen, *, training: bool) -> tuple[Tensor, Tensor]:
        """The best boxes of all levels that do not overlap much, (B, P, 4), and which of the P there are, (B, P)."""
        candidates, most = (pair[not training] for pair in (self.config.candidates, self.config.proposals))
        scores, boxes, levels = [], [], []
        for level, (said, change, at) in enumerate(zip(seen.objectness, seen.deltas, seen.anchors, strict=True)):
            score, places = said.topk(min(candidates, said.shape[1]), 1)
            change = change.gather(1, places[..., None].expand(-1, -1, 4))
            scores.append(score.sigmoid())
            boxes.append(decode_boxes(change, at[places], ANCHOR_WEIGHTS))
            levels.append(torch.full_like(places[0], level))
        score, box, level_of = torch.cat(scores, 1), clip_boxes(torch.cat(boxes, 1), seen.sizes), torch.cat(levels)
        most = min(most, len(level_of))
        proposals = box.new_zeros(len(box), most, 4)
        proposed = torch.zeros_like(proposals[..., 0], dtype=torch.bool)
        for n in range(len(box)):
            kept = suppress(box[n], score[n], level_of, least=1e-3, overlap=0.7, most=most)
            proposals[n, : len(kept)], proposed[n, : len(kept)] = box[n, kept], True
        return proposals, proposed

    def _look(self, maps: Sequence[Tensor], boxes: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The second network on regions (N, 4) of pictures (N,): logits (N, K + 1), and deltas (N, K + 1, 4)."""
        own = maps[:-1]  # regions are cut from the trunk's levels, not from the added one
        regions = pool_regions(own, self.strides, boxes, pictures, self.region_size)
        features = self.region_head(regions)
        return self.predictor["classes"](features), self.predictor["boxes"](features)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the heads, for layer-wise learning rates."""
        gone = tuple(f"{layer}." for layer in self.trunk.classifier_layers)
        groups = ([prefix for prefix in group if prefix not in gone] for group in self.trunk.layer_groups())
        trunk = [tuple(f"trunk.{prefix}" for prefix in group) for group in groups if group]
        return [*trunk, ("pyramid.", "proposal_head."), ("region_head.",), ("predictor.",)]


def used_maps(strides: Sequence[int], config: FasterRCNNConfig) -> list[int]:
    """Which of a trunk's maps the pyramid stands on: the last of each resolution, the coarsest `levels` of them.

    Raises UsageError where the trunk has fewer resolutions.
    """
    last = {stride: n for n, stride in enumerate(strides)}
    if len(last) < config.levels:
        there = ", ".join(map(str, last))
        raise UsageError(
            f"{config.trunk} has maps of {len(last)} resolutions (strides {there}), the pyramid needs levels = "
            f"{config.levels}; set fewer levels, and anchor_sizes for one more"
        )
    return [last[stride] for stride in sorted(last)][-config.levels :]


def build(config: FasterRCNNConfig) -> FasterRCNN:
    return FasterRCNN(config, build_trunk(config))


def build_trunk(config: FasterRCNNConfig) -> Trunk:
    trunk = create_trunk(config.trunk, {"in_channels": config.in_channels, **dict(config.trunk_settings)})
    if config.frozen_norm:
        freeze_batch_norms(trunk, config.frozen_norm_eps)
    return trunk


VARIANTS = {
    "fasterrcnn_resnet50_fpn": FasterRCNNConfig(),
    "fasterrcnn_resnet50_fpt": FasterRCNNConfig(neck="fpt"),
    "fasterrcnn_resnet50_fpn_v2": FasterRCNNConfig(
        frozen_norm=False, norm=True, proposal_convolutions=2, region_convolutions=4, region_layers=1
    ),
    # ours: a shallow trunk trained from the start, on maps of a quarter and an eighth of the picture
    "faster_rcnn_nano": FasterRCNNConfig(
        "resnet_nano",
        {"stem": "7x7", "stem_width": 32, "depths": (1, 1), "widths": (32, 64)},
        frozen_norm=False,
        levels=2,
        width=32,
        anchor_sizes=(12, 18, 27),
        candidates=(200, 100),
        proposals=(100, 50),
        anchor_samples=64,
        region_samples=32,
        hidden=128,
        image_size=(64, 80),
        num_classes=10,
    ),
}
VARIANTS["faster_rcnn_fpt_nano"] = replace(VARIANTS["faster_rcnn_nano"], neck="fpt")
LANDMARK = Landmark(
    model=build, variants=VARIANTS, names=NAMES, infer_config=infer_config, first_class=1, example=example
)
