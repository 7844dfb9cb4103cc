"""What detectors have in common: how they are called, and that what they return knows the objects it found.

A detector takes `(images, padding_mask)`: pictures (B, C, H, W), normalised and padded with zeros at the bottom and the
right to one size, and where that is, (B, H, W) bool, true on padding. What it returns has `found(sizes)`. What is
computed of all places alike, whatever is in a picture, it computes by `dense_maps(images)`, a list of tensors whose
shapes depend on that of the images only: there prediction puts something faster (inference/fast_maps.py). One that
learns by losses of its own, over more than it returns, offers `losses(images, padding_mask, boxes, labels, generator)`,
and `judge` with the same arguments for both at once; the others return `Detections` and learn by set prediction. One
that gives masks takes those of the objects as well (`masks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.ops import box_convert

from orchard.models import picture_size


@dataclass(frozen=True)
class Found:
    """The objects of one picture, in no order."""

    scores: Tensor  # (N,) float32, probabilities
    labels: Tensor  # (N,) int64
    boxes: Tensor  # (N, 4) float32: left, top, right, bottom in pixels
    masks: Tensor | None = None  # (N, M, M) float32, probabilities inside of each box, of detectors that give masks


class Answer(Protocol):
    """What a detector returns."""

    def found(self, sizes: Tensor) -> list[Found]:
        """The objects of each picture, in pixels of pictures of these heights and widths, (B, 2)."""
        ...


class OwnLosses(Protocol):
    """A detector that learns by losses of its own."""

    loss_names: tuple[str, ...]  # of what `losses` returns

    def losses(
        self, images: Tensor, padding_mask: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        """Scalars by their names, whose sum is learned from.

        Args:
            images: (B, C, H, W).
            padding_mask: (B, H, W).
            boxes: for each picture (N, 4) float32: middle x, middle y, width and height, as shares of the picture
                without its padding.
            labels: for each picture (N,) int64.
            generator: what is drawn at random is drawn from it, on the CPU; none: from torch's own.
        """
        ...

    def judge(
        self, images: Tensor, padding_mask: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> tuple[Answer, Mapping[str, Tensor]]:  # fmt: skip
        """What `forward` answers, and the losses of `losses`, from one pass through the trunk."""
        ...


@dataclass(frozen=True)
class Detections:
    """What is found in each picture: one class and one box per query, in no order."""

    logits: Tensor  # (B, Q, K + 1), the last for "no object"
    boxes: Tensor  # (B, Q, 4): middle x, middle y, width, height, as shares of the picture without its padding
    auxiliary: tuple[Detections, ...] = ()  # the same after each decoder layer but the last, for training

    def found(self, sizes: Tensor) -> list[Found]:
        """One answer per query: its most likely class but "no object", and its box, which is not cut off at the edges
        (DETR, appendix A.4)."""
        probabilities = self.logits.float().softmax(-1)[..., :-1]  # (B, Q, K)
        scores, labels = probabilities.max(-1)
        height, width = sizes.to(self.boxes).unbind(1)
        scale = torch.stack([width, height, width, height], 1)[:, None]  # (B, 1, 4)
        boxes = box_convert(self.boxes.float(), "cxcywh", "xyxy") * scale
        return [Found(*one) for one in zip(scores, labels, boxes, strict=True)]


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Random pictures of unlike sizes, padded at the bottom and the right with zeros."""
    height, width = picture_size(config)
    heights, widths = (0.6 + 0.4 * torch.rand(2, count, 1, 1, generator=generator)) * torch.tensor(
        [height, width]
    ).view(2, 1, 1, 1)
    padding = (torch.arange(height)[:, None] >= heights) | (torch.arange(width) >= widths)  # (B, H, W)
    images = torch.randn(count, config.in_channels, height, width, generator=generator)
    return {"images": images.masked_fill(padding[:, None], 0.0), "padding_mask": padding}


def check_padding(padding_mask: Tensor, images: Tensor) -> None:
    """Raise ValueError unless the mask is a bool (B, H, W) of the pictures' own size."""
    wanted = (images.shape[0], *images.shape[2:])  # len() of a tensor would be a constant in an export
    if padding_mask.dtype != torch.bool or tuple(padding_mask.shape) != wanted:
        found = f"{tuple(padding_mask.shape)} {str(padding_mask.dtype).removeprefix('torch.')}"
        raise ValueError(f"expected a padding mask of shape {wanted} bool, true where there is no picture, got {found}")
