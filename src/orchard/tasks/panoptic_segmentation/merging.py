"""From overlapping masks to segments that share no pixel (DETR's official post-processing)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.panoptic.contracts import VOID
from orchard.data.sizing import resize_labels

SMALLEST = 4  # pixels: a segment of so many or fewer is removed


@dataclass(frozen=True)
class Segmented:
    """The segments of one image, N of them."""

    map: np.ndarray  # (H, W) int32: n + 1 where segment n is; all VOID where nothing was likely
    labels: np.ndarray  # (N,) int64
    scores: np.ndarray  # (N,) float32, probabilities


def likely(logits: Tensor, threshold: float) -> Tensor:
    """The queries, of logits (Q, K + 1), whose most likely class is none but "no object" and likelier than this."""
    scores, labels = logits.float().softmax(-1).max(-1)
    return ((labels != logits.shape[-1] - 1) & (scores > threshold)).nonzero()[:, 0]


def merge(
    logits: Tensor, masks: Tensor, things: Sequence[bool], seen: tuple[int, int], stored: tuple[int, int]
) -> Segmented:
    """Give every pixel to the query whose mask is strongest there.

    Queries for the same stuff become one segment; then, as in the official code, small segments are taken away and
    their pixels given to others, until none is small. A query that was merged into another counts as small.

    Args:
        logits: (N, K + 1), of likely queries alone.
        masks: (N, h, w) logits.
        things: of each class, whether it is a thing.
        seen: height and width of the image that the model saw, at which masks are compared.
        stored: height and width of the image as it is stored, which the answer has.
    """
    scores, labels = (one.cpu() for one in logits.float().softmax(-1).max(-1))
    whole = F.interpolate(masks[:, None].float(), seen, mode="bilinear", align_corners=False)[:, 0].cpu()  # (N, *seen)
    kept, merged = torch.arange(len(whole)), False
    owners = torch.zeros(stored, dtype=torch.int64)
    while len(kept):
        owners = whole[kept].argmax(0)
        if not merged:
            owners, merged = _first_of_stuff(labels, things)[owners], True
        owners = resize_labels(owners, stored)
        small = torch.bincount(owners.flatten(), minlength=len(kept)) <= SMALLEST
        if not small.any():
            break
        kept = kept[~small]
    map = (owners + 1).int().numpy() if len(kept) else np.full(stored, VOID, np.int32)
    return Segmented(map, labels[kept].numpy(), scores[kept].numpy())


def _first_of_stuff(labels: Tensor, things: Sequence[bool]) -> Tensor:
    """For each query, itself, or of stuff the first query of the same class, (N,) int64."""
    first: dict[int, int] = {}
    owners = [n if things[label] else first.setdefault(label, n) for n, label in enumerate(labels.tolist())]
    return torch.tensor(owners)
