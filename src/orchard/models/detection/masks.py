"""Masks of objects that a detector looks at as regions: what is said of them, and what they learn from.

Mask R-CNN (arXiv:1703.06870, section 3). A mask is said in a square that is stretched over the object's box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align

from orchard.models.detection.contract import Found
from orchard.models.detection.regions import Regions, RegionSample


@dataclass(frozen=True)
class MaskedRegions(Regions):
    """What proposals say, and a mask for each of the up to D answers that were chosen from them."""

    scores: Tensor  # (B, D), less than 0 where a picture has fewer answers
    labels: Tensor  # (B, D) int64
    boxes: Tensor  # (B, D, 4), in pixels of the picture as the model sees it
    masks: Tensor  # (B, D, M, M), logits inside of the box, of the answer's class

    def chosen(self) -> list[Found]:
        counts = (self.scores >= 0).sum(1).tolist()
        columns = self.scores, self.labels, self.boxes, self.masks.sigmoid()
        return [Found(*(column[n, :count] for column in columns)) for n, count in enumerate(counts)]


def with_masks(regions: Regions, chosen: Sequence[Found], logits: Tensor) -> MaskedRegions:
    """`chosen` answers of `regions` with the masks (N, M, M) of all of them, padded to as many as there may be."""
    counts = [len(one.scores) for one in chosen]

    def padded(rows: Sequence[Tensor], value: float = 0) -> Tensor:
        more = [(0, 0) * (one.ndim - 1) + (0, regions.most_answers - len(one)) for one in rows]
        return torch.stack([F.pad(one, by, value=value) for one, by in zip(rows, more, strict=True)])

    return MaskedRegions(
        **vars(regions),
        scores=padded([one.scores for one in chosen], -1),
        labels=padded([one.labels for one in chosen]),
        boxes=padded([one.boxes for one in chosen]),
        masks=padded(torch.split(logits.float(), counts)),
    )


def mask_loss(logits: Tensor, sample: RegionSample, masks: Sequence[Tensor]) -> Tensor:
    """The binary cross entropy of the mask of each sampled object's own class, a mean over all their pixels.

    Args:
        logits: (M, K + 1, S, S), a mask for each class of the M regions of `sample` that are objects.
        sample: the regions.
        masks: for each picture (N, H, W), the masks of its objects, of the size of the padded picture.
    """
    pictures, boxes = sample.pictures[sample.objects], sample.boxes[sample.objects]
    targets = []
    for n, mine in enumerate(masks):
        here = pictures == n
        rois = torch.cat([sample.matched[here][:, None].to(boxes), boxes[here]], 1)
        targets.append(roi_align(mine[:, None].to(boxes), rois, logits.shape[-1])[:, 0])
    own = logits[torch.arange(len(logits), device=logits.device), sample.classes[sample.objects]].float()
    total = F.binary_cross_entropy_with_logits(own, torch.cat(targets), reduction="sum")
    return total / max(own.numel(), 1)


def paste_mask(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (M, M) of probabilities inside of a box (4,), on a picture of this height and width: (H, W), 0 outside.

    Bilinear, as torchvision does it: the corners of the box are cut to whole pixels first.
    """
    pasted: Tensor = paste_masks_in_image(mask[None, None], box[None], size)[0, 0]
    return pasted
