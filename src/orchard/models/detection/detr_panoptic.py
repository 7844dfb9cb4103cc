"""DETR with a head for masks: panoptic segmentation (Carion et al. 2020, arXiv:2005.12872, section 4.4 and figure 8).

Things and stuff alike are objects of the set that DETR predicts. For each of its queries, an attention says where in
the picture the query looks, and a small convolutional network makes a mask of that, bringing it to the size of the
trunk's finest map on the way. Legend: B pictures, Q queries, N of them chosen, D width, M heads, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.detection.contract import Detections, example
from orchard.models.detection.detr import DC5, DETR, DETRConfig, Looked
from orchard.models.detection.detr import VARIANTS as DETR_VARIANTS
from orchard.models.detection.detr import build as build_detr
from orchard.models.detection.detr_names import CONFIG_JSON
from orchard.models.detection.detr_panoptic_names import NAMES, infer_config
from orchard.models.vision.trunk import Trunk


@dataclass(frozen=True)
class DETRPanopticConfig(DETRConfig):
    num_classes: int = 250  # things and stuff; "no object" is one more
    mask_groups: int = 8  # of each group norm in the mask head


@dataclass(frozen=True)
class Segmentations:
    """What is found in each picture, and a mask for each query."""

    detections: Detections
    masks: Tensor  # (B, Q, h, w): logits, of the size of the trunk's finest map


class AttentionMap(nn.Module):
    """Where a query looks: the weights of an attention, without values.

    All heads share one softmax, so that the weights of a query sum to one over heads and cells together, as in the
    official code; the paper does not say.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        for layer in (self.query, self.key):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor, memory: Tensor, visible: Tensor, pictures: Tensor) -> Tensor:
        """States of queries (N, D), memory (B, S, D) and its visible cells (B, S) bool, of which row n has those of
        `pictures[n]`, to weights (N, M, S)."""
        query = self.query(states).unflatten(1, (self.heads, -1))  # (N, M, d)
        key = self.key(memory).unflatten(2, (self.heads, -1))[pictures]  # (N, S, M, d)
        scores = torch.einsum("nmd,nsmd->nms", query * query.shape[-1] ** -0.5, key)
        scores = scores.masked_fill(~visible[pictures, None], float("-inf"))
        return scores.flatten(1).softmax(1).view(scores.shape)


class MaskHead(nn.Module):
    """Convolutions that bring a map and its attention to a mask on the trunk's finest map (figure 8).

    Two at the size of the map, then one on each finer map of the trunk, which is added to what is enlarged.
    """

    def __init__(self, width: int, heads: int, channels: Sequence[int], groups: int):
        """`channels` are those of the finer maps, finest first."""
        super().__init__()
        steps = [width >> (n + 1) for n in range(len(channels) + 1)]  # a half, a quarter, ...
        sizes = [width + heads, width + heads, *steps]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(groups, after), nn.ReLU())
            for before, after in pairwise(sizes)
        )
        self.adapters = nn.ModuleList(
            nn.Conv2d(finer, step, 1) for finer, step in zip(reversed(channels), steps[:-1], strict=True)
        )
        self.out = nn.Conv2d(steps[-1], 1, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # as the official code
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, finer: Sequence[Tensor], pictures: Tensor) -> Tensor:
        """Maps x (N, D + M, h, w) and the trunk's finer maps, finest first, (B, C, H, W) each, of which row n has that
        of `pictures[n]`, to logits (N, H, W)."""
        first, second, *others = self.blocks
        x = second(first(x))
        for block, adapter, one in zip(others, self.adapters, reversed(finer), strict=True):
            x = block(adapter(one)[pictures] + F.interpolate(x, size=one.shape[2:], mode="nearest"))
        return self.out(x)[:, 0]  # type: ignore[no-any-return]


class DETRPanoptic(nn.Module):
    """Pictures (B, C, H, W), normalised, padded to one size, to `Segmentations`."""

    head_name = "detector.class_head"

    def __init__(self, config: DETRPanopticConfig, detector: DETR):
        super().__init__()
        self.config = c = config
        self.detector = detector
        self.mask_attention = AttentionMap(c.width, c.heads)
        self.mask_head = MaskHead(c.width, c.heads, detector.trunk.channels[:-1], c.mask_groups)

    @property
    def trunk(self) -> Trunk:
        return self.detector.trunk

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Segmentations:
        """`padding_mask` (B, H, W) bool is true where there is no picture; none: pictures without padding."""
        looked = self.look(images, padding_mask)
        count, queries = looked.states.shape[:2]
        pictures = torch.arange(count, device=images.device)[:, None].expand(-1, queries).flatten()
        masks = self.masks(looked, pictures, torch.arange(queries, device=images.device).repeat(count))
        return Segmentations(looked.found, masks.view(count, queries, *masks.shape[1:]))

    def look(self, images: Tensor, padding_mask: Tensor | None = None) -> Looked:
        """What DETR finds, and all that masks are made from; called as `forward` is."""
        return self.detector.look(images, padding_mask)

    def masks(self, looked: Looked, pictures: Tensor, queries: Tensor) -> Tensor:
        """Logits of the masks of some queries, (N, h, w): of picture `pictures[n]` the query `queries[n]`.

        A mask depends on no other query, so that training computes those of matched queries and prediction those of
        likely ones.
        """
        states = looked.states[pictures, queries]
        attention = self.mask_attention(states, looked.memory, looked.visible, pictures)
        cells = attention.unflatten(2, looked.features.shape[2:])  # (N, M, h, w)
        x = torch.cat([looked.features[pictures], cells.to(looked.features.dtype)], 1)
        return self.mask_head(x, looked.maps[:-1], pictures)  # type: ignore[no-any-return]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the heads, for layer-wise learning rates."""
        detector = [tuple(f"detector.{prefix}" for prefix in group) for group in self.detector.layer_groups()]
        return [*detector, ("mask_attention.", "mask_head.")]


def build(config: DETRPanopticConfig) -> DETRPanoptic:
    return DETRPanoptic(config, build_detr(config))


VARIANTS = {
    "detr_r50_panoptic": DETRPanopticConfig("resnet50"),
    "detr_r50_dc5_panoptic": DETRPanopticConfig("resnet50", DC5),
    "detr_r101_panoptic": DETRPanopticConfig("resnet101"),
    # ours: detr_nano with masks on a quarter of the picture's size
    "detr_panoptic_nano": DETRPanopticConfig(
        **vars(DETR_VARIANTS["detr_nano"]) | {"num_classes": 14, "mask_groups": 4}
    ),
}
LANDMARK = Landmark(
    model=build, variants=VARIANTS, names=NAMES, infer_config=infer_config, config_json=CONFIG_JSON, example=example
)
