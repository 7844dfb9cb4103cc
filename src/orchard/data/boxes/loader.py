"""Batches of images with boxes.

Images of a training batch have unlike sizes and are padded to the largest. In evaluation every image is a batch of its
own: a trunk's convolutions see a little of the padding, so an answer must not depend on what it is padded to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert

from orchard.data.annotated import AnnotatedBatches, resize, vary
from orchard.data.batches import Batch, Padded, Ragged
from orchard.data.boxes.augment import WHETHER_MOSAIC, mosaic, others_of
from orchard.data.boxes.contracts import DetectionSplit, Objects
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.sizing import pad, with_channels


@dataclass(frozen=True)
class DetectionBatch(Batch):
    """Images with the objects that are to be found in them.

    images: (B, C, H, W) float, padded at the bottom and the right with zeros, with their mask (B, H, W);
    boxes: (N, 4) float32, middle x, middle y, width and height as shares of the image without its padding;
    labels: (N,) int64;
    sizes: (B, 2) int64, heights and widths of the images as they are stored;
    indices: (B,) int64.
    """

    images: Padded
    boxes: Ragged
    labels: Ragged
    sizes: Tensor
    indices: Tensor


@dataclass(frozen=True)
class InstanceBatch(DetectionBatch):
    """The same with masks.

    masks: (N, H, W) bool, of the size of the padded images.
    """

    masks: Ragged


class BoxLoader(AnnotatedBatches[DetectionBatch, DetectionSplit, BoxAugmentSettings]):
    """Batches of `split`, varied by `augment`, or for evaluation (`augment=None`) one image after the other."""

    masks = False  # whether they are asked for

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> DetectionBatch:
        mine, numbers = self.taken(epoch, indices, part)
        images, found, sizes = [], [], []
        for index, row in zip(mine, numbers, strict=True):
            record = self.split.record(int(index))
            sizes.append(record.image.shape[1:])
            image, objects = with_channels(record.image, self.preprocess.channels), self._asked(record.objects)
            if self.augment is None:
                image, objects = resize(image, objects, self.sizing)
            else:
                if row[WHETHER_MOSAIC] < self.augment.mosaic:
                    first = int(index) - int(index) % self.count  # of this epoch, where records are made
                    more = [self.split.record(first + other) for other in others_of(row, self.count)]
                    pieces = [(with_channels(one.image, len(image)), self._asked(one.objects)) for one in more]
                    image, objects = mosaic([(image, objects), *pieces], row)
                image, objects = vary(image, objects, self.augment, row, self.sizing)
            images.append(self.preprocess.normalise(image[None])[0])
            found.append(objects.only(~objects.ignored))
        return self.collate(images, found, torch.tensor(sizes), torch.from_numpy(mine))

    def _asked(self, objects: Objects) -> Objects:
        return objects if self.masks else objects.without_masks()

    def collate(self, images: list[Tensor], objects: list[Objects], sizes: Tensor, indices: Tensor) -> DetectionBatch:
        """A batch of images (C, H, W) and what is to be found on each."""
        boxes = [as_shares(one, image) for one, image in zip(objects, images, strict=True)]
        labels = [torch.from_numpy(one.labels) for one in objects]
        return DetectionBatch(pad(images), Ragged.of(boxes), Ragged.of(labels), sizes, indices)


class InstanceLoader(BoxLoader):
    """The same with the masks of the objects."""

    masks = True

    def collate(self, images: list[Tensor], objects: list[Objects], sizes: Tensor, indices: Tensor) -> InstanceBatch:
        batch = super().collate(images, objects, sizes, indices)
        height, width = batch.images.values.shape[2:]
        rows = []
        for one in objects:
            if one.masks is None:
                raise ValueError("expected objects with masks")
            rows.append(F.pad(one.masks.dense(), (0, width - one.masks.width, 0, height - one.masks.height)))
        return InstanceBatch(**vars(batch), masks=Ragged.of(rows))


def as_shares(objects: Objects, image: Tensor) -> Tensor:
    """The boxes of objects, (N, 4): middle, width and height as shares of the image's sides."""
    height, width = image.shape[1:]
    boxes = torch.from_numpy(objects.boxes)
    return box_convert(boxes, "xyxy", "cxcywh") / torch.tensor([width, height, width, height])
