"""Regions of an image: proposed, thinned out, and cut from a pyramid of feature maps.

Faster R-CNN (arXiv:1506.01497), Mask R-CNN's RoIAlign (arXiv:1703.06870) and FPN's choice of a level (arXiv:1612.03144).
Boxes are left, top, right, bottom in pixels. On the meta device, where there are shapes and no numbers, as many regions
are kept as there can be, so that arithmetic is counted at its most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align


class ProposalHead(nn.Module):
    """Maps of one width, (B, C, H, W) each, to what every anchor says (section 3.1, figure 3).

    Objectness (B, H · W · A), a logit, and deltas (B, H · W · A, 4) for each map, in the order of `grid_anchors`.
    """

    def __init__(self, width: int, anchors: int, depth: int):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.objectness = nn.Conv2d(width, anchors, 1)
        self.deltas = nn.Conv2d(width, 4 * anchors, 1)
        for layer in (*self.convolutions, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = [], []
        for x in maps:
            for convolution in self.convolutions:
                x = F.relu(convolution(x))
            objectness.append(self.objectness(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)))
        return objectness, deltas


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, ..., 4) cut off at the edges of their images, whose heights and widths are `sizes` (B, 2)."""
    edges = sizes.flip(1).repeat(1, 2).to(boxes).view(-1, *[1] * (boxes.ndim - 2), 4)
    return torch.minimum(boxes.clamp(min=0), edges)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, *, least: float, overlap: float, most: int) -> Tensor:
    """Places of the boxes (N, 4) that stay, best first: of those of one group that overlap by more than this IoU the
    best, among those with sides of at least `least` pixels; not more than `most`."""
    if boxes.is_meta:
        return torch.arange(min(most, len(boxes)), device=boxes.device)
    large = (boxes[:, 2:] - boxes[:, :2] >= least).all(1).nonzero().flatten()
    return large[batched_nms(boxes[large], scores[large], groups[large], overlap)[:most]]


def pool_regions(maps: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, images: Tensor, size: int) -> Tensor:
    """What a pyramid has in regions of its images, (N, C, size, size).

    A region of 224 x 224 pixels is cut from the map with a stride of 16, one of half its sides from the next finer
    map, as far as there are maps (arXiv:1612.03144, equation 1).

    Args:
        maps: (B, C, H, W) each, finest first.
        strides: pixels a side that one cell of each map stands for.
        boxes: (N, 4).
        images: (N,) int64, the place of each region's image in the batch.
        size: cells a side; each is the mean of four points (RoIAlign).
    """
    if boxes.is_meta:
        return maps[0].new_empty(len(boxes), maps[0].shape[1], size, size)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    wanted = (4 + torch.log2(areas.sqrt() / 224) + 1e-6).floor()
    steps = boxes.new_tensor([math.log2(stride) for stride in strides[1:]])
    levels = (wanted[:, None] >= steps).sum(1)
    rois = torch.cat([images[:, None].to(boxes), boxes], 1)
    pooled = maps[0].new_zeros(len(boxes), maps[0].shape[1], size, size)
    for level, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        here = (levels == level).nonzero().flatten()
        cut = roi_align(features, rois[here], size, spatial_scale=1 / stride, sampling_ratio=2)
        pooled = pooled.index_copy(0, here, cut.to(pooled.dtype))
    return pooled
