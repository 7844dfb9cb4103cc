"""Regions of an image: proposed, thinned out, and cut from a pyramid of feature maps.

Faster R-CNN (arXiv:1506.01497), RoIAlign (Mask R-CNN, arXiv:1703.06870) and FPN's choice of a map (arXiv:1612.03144).
Boxes are left, top, right, bottom in pixels. On the meta device, where there are shapes and no numbers, as many regions
are kept as there can be, so that arithmetic is counted at its most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

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


class RegionHead(nn.Module):
    """Regions (N, C, size, size) to features (N, the last width): 3x3 convolutions, if there are any, and fully
    connected layers of these widths. `norm` makes the norm behind each convolution; without one they have a bias."""

    def __init__(
        self, channels: int, size: int, convolutions: int, widths: Sequence[int],
        norm: Callable[[int], nn.Module] | None,
    ):  # fmt: skip
        super().__init__()
        self.convolutions = _convolutions([channels] * (convolutions + 1), norm)
        inputs = [channels * size**2, *widths]
        self.layers = nn.ModuleList(map(nn.Linear, inputs, widths))

    def forward(self, regions: Tensor) -> Tensor:
        x = self.convolutions(regions).flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class MaskHead(nn.Module):
    """Regions (N, C, size, size) to features of twice the resolution, (N, width, 2 size, 2 size): 3x3 convolutions,
    then one that doubles the sides (Mask R-CNN, arXiv:1703.06870, figure 4, right). `norm` as in `RegionHead`."""

    def __init__(self, channels: int, width: int, convolutions: int, norm: Callable[[int], nn.Module] | None):
        super().__init__()
        self.convolutions = _convolutions([channels, *[width] * convolutions], norm)
        for layer in self.convolutions.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.upsample = nn.ConvTranspose2d(width if convolutions else channels, width, 2, stride=2)
        nn.init.kaiming_normal_(self.upsample.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, regions: Tensor) -> Tensor:
        return F.relu(self.upsample(self.convolutions(regions)))


def _convolutions(widths: Sequence[int], norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    """3x3 convolutions from each of these widths to the next."""
    layers = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm is None)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        norms = [] if norm is None else [norm(outputs)]
        layers.append(nn.Sequential(convolution, *norms, nn.ReLU()))
    return layers


class ClassBoxes(nn.Module):
    """A linear layer from features (N, D) to a box for each class, (N, classes, 4): a row of its weights a class."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        bound = width**-0.5  # as a linear layer begins
        self.weight = nn.Parameter(torch.empty(classes, 4, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(classes, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).view(-1, *self.weight.shape[:2])


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
