"""Faster R-CNN on a feature pyramid (Ren et al. 2015, arXiv:1506.01497; Lin et al. 2017, arXiv:1612.03144).

A trunk and a pyramid make maps of the picture. A small network slides over them and says of boxes of fixed shapes, the
anchors, whether an object is there and how its box differs; what it proposes is cut from the maps, and a second network
says which object that is and corrects the box once more. Sizes and constants are torchvision's. Legend: B pictures, A
anchors, P proposals, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from orchard.errors import UsageError
from orchard.models import Landmark
from orchard.models.detection.contract import Found, check_padding, example
from orchard.models.detection.faster_rcnn_names import NAMES, infer_config
from orchard.models.vision.trunk import Settings, Trunk, create_trunk, freeze_batch_norms, frozen_settings
from orchard.nn.anchors import cell_anchors, grid_anchors
from orchard.nn.box_coding import decode_boxes, encode_boxes
from orchard.nn.box_matching import match_boxes, sample_boxes
from orchard.nn.checks import check_images
from orchard.nn.feature_pyramid import FeaturePyramid
from orchard.nn.regions import ProposalHead, clip_boxes, pool_regions, suppress

ANCHOR_WEIGHTS, REGION_WEIGHTS = (1.0,) * 4, (10.0, 10.0, 5.0, 5.0)  # of the differences dx, dy, dw, dh


@dataclass(frozen=True)
class FasterRCNNConfig:
    trunk: str = "resnet50"  # a classifier's name
    trunk_settings: Settings | Mapping[str, Any] = ()  # fields of its configuration that differ from that name's
    frozen_norm: bool = True  # the trunk's batch norms are constants, as of a trunk that was trained before
    frozen_norm_eps: float = 1e-5  # what these add to variances; 0 in torchvision's first weights
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
        if len(self.anchor_sizes) != self.levels + 1:
            raise ValueError(
                f"anchor_sizes has {len(self.anchor_sizes)} numbers, expected levels + 1 = {self.levels + 1}"
            )


@dataclass(frozen=True)
class Regions:
    """What a picture's anchors and proposals say. Boxes are in pixels of the picture as the model sees it."""

    objectness: Tensor  # (B, A), logits
    anchor_deltas: Tensor  # (B, A, 4)
    proposals: Tensor  # (B, P, 4): left, top, right, bottom
    proposed: Tensor  # (B, P) bool: of pictures with fewer proposals the last are none
    region_logits: Tensor  # (B, P, K + 1), the last for background
    region_deltas: Tensor  # (B, P, K + 1, 4), one box for each class
    seen: Tensor  # (B, 2) int64: heights and widths without padding
    least_score: float
    most_answers: int

    def found(self, sizes: Tensor) -> list[Found]:
        """Every class of every proposal is an answer of its own; of those of one class on one place the best stays."""
        scores = self.region_logits.float().softmax(-1)[..., :-1]  # (B, P, K)
        anchors = self.proposals[:, :, None]
        boxes = decode_boxes(self.region_deltas[:, :, :-1].float(), anchors, REGION_WEIGHTS)  # (B, P, K, 4)
        boxes = clip_boxes(boxes, self.seen)
        scale = (sizes.to(boxes) / self.seen.to(boxes)).flip(1).repeat(1, 2)  # (B, 4)
        likely = (scores > self.least_score) & self.proposed[..., None]
        answers = []
        for n in range(len(scores)):
            place, label = likely[n].nonzero(as_tuple=True)
            score, box = scores[n, place, label], boxes[n, place, label]
            kept = suppress(box, score, label, least=1e-2, overlap=0.5, most=self.most_answers)
            answers.append(Found(score[kept], label[kept], box[kept] * scale[n]))
        return answers


class RegionHead(nn.Module):
    """Regions (N, D, 7, 7) to features (N, hidden): convolutions, if there are any, and fully connected layers."""

    def __init__(self, c: FasterRCNNConfig, size: int):
        super().__init__()

        def convolution() -> nn.Sequential:
            norm: list[nn.Module] = [nn.BatchNorm2d(c.width)] if c.norm else []
            return nn.Sequential(nn.Conv2d(c.width, c.width, 3, padding=1, bias=not c.norm), *norm, nn.ReLU())

        self.convolutions = nn.Sequential(*(convolution() for _ in range(c.region_convolutions)))
        for block in self.convolutions:
            nn.init.kaiming_normal_(block[0].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[index]
        widths = [c.width * size**2, *[c.hidden] * c.region_layers]
        self.layers = nn.ModuleList(map(nn.Linear, widths, widths[1:]))

    def forward(self, regions: Tensor) -> Tensor:
        x = self.convolutions(regions).flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class ClassBoxes(nn.Module):
    """A linear layer from features (N, hidden) to a box for each class, (N, K + 1, 4): a row of weights a class."""

    def __init__(self, hidden: int, classes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, 4, hidden).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.bias = nn.Parameter(torch.zeros(classes, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, (-1, 4))


class FasterRCNN(nn.Module):
    """Pictures (B, C, H, W), normalised, padded to one size, to `Regions`."""

    head_name = "predictor"
    loss_names = ("objectness", "rpn_box_reg", "classifier", "box_reg")
    region_size = 7

    def __init__(self, config: FasterRCNNConfig, trunk: Trunk):
        super().__init__()
        self.config = c = config
        self.trunk: Trunk = trunk
        self.used = used_maps(trunk.strides, c)
        self.strides = tuple(trunk.strides[n] for n in self.used)
        norm = nn.BatchNorm2d if c.norm else None
        self.pyramid = FeaturePyramid([trunk.channels[n] for n in self.used], c.width, norm)
        self.proposal_head = ProposalHead(c.width, len(c.anchor_ratios), c.proposal_convolutions)
        self.region_head = RegionHead(c, self.region_size)
        classes = c.num_classes + 1
        self.predictor = nn.ModuleDict(
            {"classes": nn.Linear(c.hidden, classes), "boxes": ClassBoxes(c.hidden, classes)}
        )

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Regions:
        """`padding_mask` (B, H, W) bool is true where there is no picture; none: pictures without padding."""
        c = self.config
        maps, seen = self._maps(images, padding_mask)
        objectness, deltas, anchors = self._anchors(maps)
        proposals, proposed = self._propose(objectness, deltas, anchors, seen, training=False)
        pictures = torch.arange(len(images), device=images.device)[:, None].expand(proposed.shape)
        logits, boxes = self._look(maps, proposals.flatten(0, 1), pictures.flatten())
        by_picture = proposed.shape
        return Regions(
            torch.cat(objectness, 1), torch.cat(deltas, 1), proposals, proposed, logits.unflatten(0, by_picture),
            boxes.unflatten(0, by_picture), seen, c.least_score, c.most_answers,
        )  # fmt: skip

    def losses(
        self, images: Tensor, padding_mask: Tensor | None, boxes: Sequence[Tensor], labels: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Those of `OwnLosses`: of a sample of anchors (arXiv:1506.01497, equation 1) and one of proposals."""
        c = self.config
        maps, seen = self._maps(images, padding_mask)
        objectness, deltas, anchors = self._anchors(maps)
        proposals, proposed = self._propose(objectness, deltas, anchors, seen, training=True)
        scale = seen.flip(1).repeat(1, 2)
        objects = [box_convert(one, "cxcywh", "xyxy") * sides for one, sides in zip(boxes, scale, strict=True)]
        first = self._proposal_losses(
            torch.cat(objectness, 1), torch.cat(deltas, 1), torch.cat(anchors), objects, generator
        )
        regions, pictures, wanted, targets = [], [], [], []
        for n, (mine, classes) in enumerate(zip(objects, labels, strict=True)):
            region = torch.cat([proposals[n, proposed[n]], mine])  # the objects' own boxes are proposals too
            matched = match_boxes(mine, region, 0.5, 0.5, best_of_each=False)
            positive, negative = sample_boxes(matched, c.region_samples, 0.25, generator)
            chosen = torch.cat([positive, negative])
            background = torch.full_like(negative, c.num_classes)
            regions.append(region[chosen])
            pictures.append(torch.full_like(chosen, n))
            wanted.append(torch.cat([classes[matched[positive]], background]))
            targets.append(encode_boxes(mine[matched[positive]], region[positive], REGION_WEIGHTS))
        classes = torch.cat(wanted)
        logits, differences = self._look(maps, torch.cat(regions), torch.cat(pictures))
        real = (classes < c.num_classes).nonzero().flatten()
        error = _box_loss(differences[real, classes[real]], torch.cat(targets), len(classes))
        return {**first, "classifier": F.cross_entropy(logits.float(), classes), "box_reg": error}

    def _maps(self, images: Tensor, padding_mask: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """The pyramid's maps, and the pictures' heights and widths, (B, 2). Sides become multiples of the largest stride."""
        check_images(images, self.config.in_channels)
        if padding_mask is None:
            padding_mask = torch.zeros_like(images[:, 0], dtype=torch.bool)
        check_padding(padding_mask, images)
        seen = torch.stack([(~padding_mask).any(2).sum(1), (~padding_mask).any(1).sum(1)], 1)
        down, right = (-side % self.strides[-1] for side in images.shape[2:])
        maps = self.trunk.feature_maps(F.pad(images, (0, right, 0, down)))
        return self.pyramid([maps[n] for n in self.used]), seen

    def _anchors(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """What the anchors of each level say, (B, A) and (B, A, 4), and where they are, (A, 4)."""
        objectness, deltas = self.proposal_head(maps)
        height, width = (self.strides[0] * side for side in maps[0].shape[2:])
        anchors = [
            grid_anchors(cell_anchors(size, self.config.anchor_ratios).to(one.device), one.shape[2:], (height, width))
            for size, one in zip(self.config.anchor_sizes, maps, strict=True)
        ]
        return [one.float() for one in objectness], [one.float() for one in deltas], anchors

    @torch.no_grad()
    def _propose(
        self, objectness: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], seen: Tensor, *,
        training: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The best boxes of all levels that do not overlap much, (B, P, 4), and which of the P there are, (B, P)."""
        candidates, most = (pair[not training] for pair in (self.config.candidates, self.config.proposals))
        scores, boxes, levels = [], [], []
        for level, (said, change, at) in enumerate(zip(objectness, deltas, anchors, strict=True)):
            score, places = said.topk(min(candidates, said.shape[1]), 1)
            change = change.gather(1, places[..., None].expand(-1, -1, 4))
            scores.append(score.sigmoid())
            boxes.append(decode_boxes(change, at[places], ANCHOR_WEIGHTS))
            levels.append(torch.full_like(places[0], level))
        score, box, level_of = torch.cat(scores, 1), clip_boxes(torch.cat(boxes, 1), seen), torch.cat(levels)
        most = min(most, len(level_of))
        proposals, proposed = (
            box.new_zeros(len(box), most, 4),
            torch.zeros(len(box), most, dtype=torch.bool, device=box.device),
        )
        for n in range(len(box)):
            kept = suppress(box[n], score[n], level_of, least=1e-3, overlap=0.7, most=most)
            proposals[n, : len(kept)], proposed[n, : len(kept)] = box[n, kept], True
        return proposals, proposed

    def _look(self, maps: Sequence[Tensor], boxes: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The second network on regions (N, 4) of pictures (N,): logits (N, K + 1), and deltas (N, K + 1, 4)."""
        regions = pool_regions(
            maps[:-1], self.strides, boxes, pictures, self.region_size
        )  # the added level is left out
        features = self.region_head(regions)
        return self.predictor["classes"](features), self.predictor["boxes"](features)

    def _proposal_losses(
        self, objectness: Tensor, deltas: Tensor, anchors: Tensor, objects: Sequence[Tensor],
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Of anchors (A, 4) that say so, (B, A) and (B, A, 4): is an object there, and how does its box differ?"""
        said, wanted, changes, targets = [], [], [], []
        for score, change, mine in zip(objectness, deltas, objects, strict=True):
            matched = match_boxes(mine, anchors, 0.3, 0.7, best_of_each=True)
            positive, negative = sample_boxes(matched, self.config.anchor_samples, 0.5, generator)
            said.append(score[torch.cat([positive, negative])])
            wanted.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).to(score))
            changes.append(change[positive])
            targets.append(encode_boxes(mine[matched[positive]], anchors[positive], ANCHOR_WEIGHTS))
        scores, truth = torch.cat(said), torch.cat(wanted)
        return {
            "objectness": F.binary_cross_entropy_with_logits(scores, truth),
            "rpn_box_reg": _box_loss(torch.cat(changes), torch.cat(targets), len(scores)),
        }

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the heads, for layer-wise learning rates."""
        gone = tuple(f"{layer}." for layer in self.trunk.classifier_layers)
        groups = ([prefix for prefix in group if prefix not in gone] for group in self.trunk.layer_groups())
        trunk = [tuple(f"trunk.{prefix}" for prefix in group) for group in groups if group]
        return [*trunk, ("pyramid.", "proposal_head."), ("region_head.",), ("predictor.",)]


def _box_loss(deltas: Tensor, targets: Tensor, count: int) -> Tensor:
    """The smooth absolute difference, quadratic below 1/9, summed, and divided by how many were sampled."""
    return F.smooth_l1_loss(deltas.float(), targets, beta=1 / 9, reduction="sum") / count


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
    trunk = create_trunk(config.trunk, {"in_channels": config.in_channels, **dict(config.trunk_settings)})
    if config.frozen_norm:
        freeze_batch_norms(trunk, config.frozen_norm_eps)
    return FasterRCNN(config, trunk)


V2 = {"frozen_norm": False, "norm": True, "proposal_convolutions": 2, "region_convolutions": 4, "region_layers": 1}
VARIANTS = {
    "fasterrcnn_resnet50_fpn": FasterRCNNConfig(),
    "fasterrcnn_resnet50_fpn_v2": FasterRCNNConfig(**V2),
    # ours: a shallow trunk trained from the start, on maps of a quarter and an eighth of the picture
    "faster_rcnn_nano": FasterRCNNConfig(
        "resnet_nano",
        {"stem": "7x7", "stem_width": 32, "depths": (1, 1), "widths": (32, 64)},
        frozen_norm=False,
        levels=2,
        width=48,
        anchor_sizes=(12, 18, 27),
        candidates=(200, 100),
        proposals=(100, 50),
        anchor_samples=64,
        region_samples=48,
        hidden=128,
        image_size=(64, 80),
        num_classes=10,
    ),
}
LANDMARK = Landmark(model=build, variants=VARIANTS, names=NAMES, infer_config=infer_config, example=example)
