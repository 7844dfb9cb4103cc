"""Batches of images with segments.

Images of a training batch have unlike sizes and are padded to the largest. In evaluation every image is a batch of its
own and its segments have the size at which they are stored: an answer must depend neither on the images beside it nor
on what it would be padded to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert, masks_to_boxes

from orchard.data.annotated import AnnotatedBatches, vary
from orchard.data.annotated_settings import AnnotatedAugmentSettings
from orchard.data.batches import Batch, Padded, Ragged
from orchard.data.panoptic.contracts import PanopticSplit, Segments
from orchard.data.sizing import pad, resize_image, with_channels


@dataclass(frozen=True)
class PanopticBatch(Batch):
    """Images with their segments.

    images: (B, C, h, w) float, padded at the bottom and the right with zeros, with their mask (B, h, w);
    maps: (B, H, W) int32, n + 1 where an image's segment n is, 0 where nothing is; in evaluation of the size that is
    stored, not the images';
    labels: (N,) int64, of the segments;
    boxes: (N, 4) float32, around them: middle x, middle y, width and height as shares of the image without padding;
    crowd: (N,) bool, those that are not learned;
    indices: (B,) int64.
    """

    images: Padded
    maps: Tensor
    labels: Ragged
    boxes: Ragged
    crowd: Ragged
    indices: Tensor


class PanopticLoader(AnnotatedBatches[PanopticBatch, PanopticSplit, AnnotatedAugmentSettings]):
    """Batches of `split`, varied by `augment`, or for evaluation (`augment=None`) one image after the other."""

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> PanopticBatch:
        mine, numbers = self.taken(epoch, indices, part)
        images, segments = [], []
        for index, row in zip(mine, numbers, strict=True):
            record = self.split.record(int(index))
            image, found = with_channels(record.image, self.preprocess.channels), record.segments
            if self.augment is None:
                image = resize_image(image, self.sizing.of(*image.shape[1:]))
            else:
                image, found = vary(image, found, self.augment, row, self.sizing)
            images.append(self.preprocess.normalise(image[None])[0])
            segments.append(found)
        return PanopticBatch(
            pad(images),
            pad([one.map[None] for one in segments]).values[:, 0],
            Ragged.of([torch.from_numpy(one.labels) for one in segments]),
            Ragged.of([boxes_of(one) for one in segments]),
            Ragged.of([torch.from_numpy(one.crowd) for one in segments]),
            torch.from_numpy(mine),
        )


def boxes_of(segments: Segments) -> Tensor:
    """The boxes around segments, (N, 4): middle, width and height as shares of the image's sides."""
    height, width = segments.map.shape
    masks = segments.map == torch.arange(1, len(segments.labels) + 1)[:, None, None]
    edges = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])  # from pixels to their outer edges
    return box_convert(edges, "xyxy", "cxcywh") / torch.tensor([width, height, width, height])
