"""Batches of images with masks.

Training sees crops of one size. In evaluation every image is a batch of its own, whole, and its mask has the size at
which it is stored: an answer must depend neither on the images beside it nor on what it would be padded to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.annotated import AnnotatedBatches
from orchard.data.batches import Batch
from orchard.data.contracts import Preprocess
from orchard.data.masks.augment import vary
from orchard.data.masks.contracts import MaskSplit
from orchard.data.masks.settings import MaskAugmentSettings
from orchard.data.sizing import Sizing, resize_image, with_channels


@dataclass(frozen=True)
class MaskBatch(Batch):
    """Images with the classes of their pixels.

    images: (B, C, h, w) float, as the model's preprocessing left them;
    masks: (B, H, W) int64, 255 where nothing is asked; in evaluation of the size that is stored, not the images';
    indices: (B,) int64.
    """

    images: Tensor
    masks: Tensor
    indices: Tensor


class MaskLoader(AnnotatedBatches[MaskBatch, MaskSplit, MaskAugmentSettings]):
    """Batches of crops of `split`, varied by `augment`; for evaluation (`augment=None`) one image after the other."""

    def __init__(
        self,
        split: MaskSplit,
        preprocess: Preprocess,
        sizing: Sizing,
        crop: tuple[int, int],
        augment: MaskAugmentSettings | None,
        **how: int,
    ):
        """`how` is that of all annotated images: batch_size, seed, workers, rank, world."""
        super().__init__(split, preprocess, sizing, augment, **how)
        self.crop = crop

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> MaskBatch:
        mine, numbers = self.taken(epoch, indices, part)
        images, masks = [], []
        for index, row in zip(mine, numbers, strict=True):
            record = self.split.record(int(index))
            image, mask = with_channels(record.image, self.preprocess.channels), record.mask
            if self.augment is None:
                image = resize_image(image, self.sizing.of(*image.shape[1:]))
            else:
                image, mask = vary(
                    image, mask, self.augment, row, self.sizing, self.crop, self.preprocess.fill
                )  # fmt: skip
            images.append(image)
            masks.append(mask)
        pictures = self.preprocess.normalise(torch.stack(images))
        return MaskBatch(pictures, torch.stack(masks).long(), torch.from_numpy(mine))
