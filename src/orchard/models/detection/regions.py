"""What detectors that look at proposed regions share: what they say, and the losses of anchors and of regions.

Faster R-CNN (arXiv:1506.01497), with the constants of torchvision. Boxes are left, top, right, bottom in pixels of the
picture as the model sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.models.detection.contract import Found
from orchard.nn.box_coding import decode_boxes, encode_boxes
from orchard.nn.box_matching import match_boxes, sample_boxes
from orchard.nn.regions import clip_boxes, suppress

ANCHOR_WEIGHTS, REGION_WEIGHTS = (1.0,) * 4, (10.0, 10.0, 5.0, 5.0)  # of the differences dx, dy, dw, dh


@dataclass(frozen=True)
class Regions:
    """What A anchors and P proposals of each picture say."""

    objectness: Tensor  # (B, A), logits
    anchor_deltas: Tensor  # (B, A, 4)
    proposals: Tensor  # (B, P, 4)
    proposed: Tensor  # (B, P) bool: of pictures with fewer proposals the last are none
    region_logits: Tensor  # (B, P, K + 1), the last for background
    region_deltas: Tensor  # (B, P, K + 1, 4), one box for each class
    seen: Tensor  # (B, 2) int64: heights and widths without padding
    least_score: float
    most_answers: int

    def found(self, sizes: Tensor) -> list[Found]:
        """The chosen answers, in pixels of pictures of these sizes."""
        return to_sizes(self.chosen(), self.seen, sizes)

    def chosen(self) -> list[Found]:
        """The answers in pixels of the picture as the model sees it.

        Every class of every proposal is an answer of its own; of those of one class on one place the best stays.
        """
        scores = self.region_logits.float().softmax(-1)[..., :-1]  # (B, P, K)
        anchors = self.proposals[:, :, None]
        boxes = decode_boxes(self.region_deltas[:, :, :-1].float(), anchors, REGION_WEIGHTS)  # (B, P, K, 4)
        boxes = clip_boxes(boxes, self.seen)
        likely = (scores > self.least_score) & self.proposed[..., None]
        answers = []
        for n in range(len(scores)):
            place, label = _places(likely[n])
            score, box = scores[n, place, label], boxes[n, place, label]
            kept = suppress(box, score, label, least=1e-2, overlap=0.5, most=self.most_answers)
            answers.append(Found(score[kept], label[kept], box[kept]))
        return answers


def to_sizes(found: Sequence[Found], seen: Tensor, sizes: Tensor) -> list[Found]:
    """What was found on pictures of the heights and widths `seen` (B, 2), in pixels of pictures of `sizes` (B, 2)."""
    scale = (sizes.float() / seen.float()).flip(1).repeat(1, 2)  # (B, 4)
    return [replace(one, boxes=one.boxes * row.to(one.boxes)) for one, row in zip(found, scale, strict=True)]


def _places(likely: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns where (P, K) is true; where there are shapes alone, the first column of every row."""
    if likely.is_meta:
        rows = torch.arange(len(likely), device=likely.device)
        return rows, torch.zeros_like(rows)
    rows, columns = likely.nonzero(as_tuple=True)
    return rows, columns


def proposal_losses(
    objectness: Tensor, deltas: Tensor, anchors: Tensor, objects: Sequence[Tensor], samples: int,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Is an object at an anchor, and how does its box differ (section 3.1.2, equation 1)?

    Args:
        objectness: (B, A), logits.
        deltas: (B, A, 4).
        anchors: (A, 4).
        objects: for each picture (N, 4).
        samples: anchors of a picture that are learned from; at most half of them are objects.
        generator: what the sample is drawn from, on the CPU; none: torch's own.
    """
    scores, wanted, changes, targets = [], [], [], []
    for score, change, mine in zip(objectness, deltas, objects, strict=True):
        matched = match_boxes(mine, anchors, 0.3, 0.7, best_of_each=True)
        positive, negative = sample_boxes(matched, samples, 0.5, generator)
        scores.append(score[torch.cat([positive, negative])])
        wanted.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).to(score))
        changes.append(change[positive])
        targets.append(encode_boxes(mine[matched[positive]], anchors[positive], ANCHOR_WEIGHTS))
    said = torch.cat(scores)
    return {
        "objectness": F.binary_cross_entropy_with_logits(said, torch.cat(wanted)),
        "rpn_box_reg": _box_loss(torch.cat(changes), torch.cat(targets), len(said)),
    }


@dataclass(frozen=True)
class RegionSample:
    """N regions of a batch that are learned from, and what the M of them that are objects should say."""

    boxes: Tensor  # (N, 4)
    pictures: Tensor  # (N,) int64, the place of each one's picture in the batch
    classes: Tensor  # (N,) int64, K for background
    objects: Tensor  # (M,) int64, which of the N
    deltas: Tensor  # (M, 4)
    matched: Tensor  # (M,) int64, the place of each one's object among those of its picture


def sample_regions(
    proposals: Sequence[Tensor], objects: Sequence[Tensor], labels: Sequence[Tensor], samples: int, background: int,
    generator: torch.Generator | None,
) -> RegionSample:  # fmt: skip
    """Up to `samples` of each picture's proposals (P, 4) and of its objects' own boxes (N, 4), which are proposals too.

    At most a quarter of them overlap an object by half or more.
    """
    boxes, pictures, classes, deltas, objects_of = [], [], [], [], []
    for n, (mine, own) in enumerate(zip(objects, labels, strict=True)):
        regions = torch.cat([proposals[n], mine])
        matched = match_boxes(mine, regions, 0.5, 0.5, best_of_each=False)
        positive, negative = sample_boxes(matched, samples, 0.25, generator)
        chosen = torch.cat([positive, negative])
        boxes.append(regions[chosen])
        pictures.append(torch.full_like(chosen, n))
        classes.append(torch.cat([own[matched[positive]], torch.full_like(negative, background)]))
        deltas.append(encode_boxes(mine[matched[positive]], regions[positive], REGION_WEIGHTS))
        objects_of.append(matched[positive])
    wanted = torch.cat(classes)
    real = (wanted < background).nonzero().flatten()
    return RegionSample(
        torch.cat(boxes), torch.cat(pictures), wanted, real, torch.cat(deltas), torch.cat(objects_of)
    )  # fmt: skip


def region_losses(logits: Tensor, deltas: Tensor, sample: RegionSample) -> dict[str, Tensor]:
    """Which class, (N, K + 1), and how does the box of that class differ, (N, K + 1, 4)?"""
    own = deltas[sample.objects, sample.classes[sample.objects]]
    return {
        "classifier": F.cross_entropy(logits.float(), sample.classes),
        "box_reg": _box_loss(own, sample.deltas, len(logits)),
    }


def _box_loss(deltas: Tensor, targets: Tensor, count: int) -> Tensor:
    """The smooth absolute difference, quadratic below 1/9, summed, and divided by how many were sampled."""
    return F.smooth_l1_loss(deltas.float(), targets, beta=1 / 9, reduction="sum") / count
