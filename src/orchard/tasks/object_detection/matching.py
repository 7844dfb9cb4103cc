"""Which prediction answers for which object: the assignment of least total cost (DETR, arXiv:2005.12872, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert, generalized_box_iou

from orchard.models.detection.contract import Detections

NOT_A_NUMBER = 1e6  # its cost: a diverged model is still matched, so that its loss tells


@dataclass(frozen=True)
class Targets:
    """The objects of a batch of pictures: for each picture its classes (N,) int64 and its boxes (N, 4) float32.

    Boxes are middle x, middle y, width and height, as shares of the picture without its padding.
    """

    labels: Sequence[Tensor]
    boxes: Sequence[Tensor]

    @property
    def count(self) -> int:
        return sum(len(labels) for labels in self.labels)


@dataclass(frozen=True)
class MatchingCosts:
    """Weights of the three costs (appendix A.4)."""

    label: float = 1.0  # minus the probability of the object's class
    l1: float = 5.0  # distance of the boxes' four numbers
    giou: float = 2.0  # minus their generalised intersection over union


@dataclass(frozen=True)
class Matches:
    """Pairs of predictions and objects, (L, N) int64 each: for L layers, the N objects of the batch that have one."""

    pictures: Tensor  # place in the batch
    queries: Tensor  # which prediction of that picture
    objects: Tensor  # place among the objects of the whole batch, picture after picture


def layers_of(found: Detections) -> tuple[Tensor, Tensor]:
    """Logits (L, B, Q, K + 1) and boxes (L, B, Q, 4) of all decoder layers, the last one last."""
    layers = (*found.auxiliary, found)
    return torch.stack([one.logits for one in layers]), torch.stack([one.boxes for one in layers])


@torch.no_grad()
def matching_cost(logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, costs: MatchingCosts) -> Tensor:
    """What it costs to let a prediction answer for an object, (L, B, Q, M).

    Args:
        logits: (L, B, Q, K + 1).
        boxes: (L, B, Q, 4).
        labels: (B, M) int64, padded to the most objects of a picture.
        targets: (B, M, 4), padded too.
        costs: how the three costs are weighed.
    """
    layers, _, queries, _ = logits.shape
    index = labels[None, :, None].expand(layers, -1, queries, -1)
    label = -logits.float().softmax(-1).gather(-1, index)
    distance = torch.cdist(boxes.float(), targets.expand(layers, -1, -1, -1), p=1)
    overlap = generalized_box_iou(box_convert(boxes.float(), "cxcywh", "xyxy"), box_convert(targets, "cxcywh", "xyxy"))
    return costs.label * label + costs.l1 * distance - costs.giou * overlap


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: Targets, costs: MatchingCosts) -> Matches:
    """Match the predictions of every layer, logits (L, B, Q, K + 1) and boxes (L, B, Q, 4), to the objects.

    Every object gets one prediction, unless a picture has more of them than queries. The costs go to the CPU in one
    transfer, where scipy solves one assignment for each layer and picture.
    """
    counts = [len(labels) for labels in targets.labels]
    labels = pad_sequence(list(targets.labels), batch_first=True)
    padded = pad_sequence(list(targets.boxes), batch_first=True)
    cost = matching_cost(logits, boxes, labels, padded, costs).nan_to_num(NOT_A_NUMBER).cpu().numpy()
    starts = np.cumsum([0, *counts])
    layers = []
    for layer in cost:
        pairs = [linear_sum_assignment(one[:, :count]) for one, count in zip(layer, counts, strict=True)]
        pictures = np.concatenate([np.full(len(queries), n) for n, (queries, _) in enumerate(pairs)])
        queries = np.concatenate([queries for queries, _ in pairs])
        objects = np.concatenate([starts[n] + objects for n, (_, objects) in enumerate(pairs)])
        layers.append(np.stack([pictures, queries, objects]))
    found = torch.from_numpy(np.stack(layers, axis=1).astype(np.int64)).to(logits.device)  # (3, L, N)
    return Matches(*found)
