"""What networks that segment have in common.

`forward(images)` takes pictures (B, C, H, W), normalised, and gives logits (B, num_classes, H, W). One that says less,
because its convolutions have no padding, has `segment(images)` as well, which gives them of the whole picture. One
with auxiliary heads keeps them in `auxiliaries`, with `forward_with_auxiliaries(images)` and `auxiliary_weight`, as
classifiers do.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def segment(model: Any, images: Tensor) -> Tensor:
    """The logits of every pixel of `images` (B, C, H, W): (B, num_classes, H, W)."""
    logits: Tensor = model.segment(images) if hasattr(model, "segment") else model(images)
    return logits


def segment_with_auxiliaries(model: Any, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The same, and the logits of auxiliary heads where the model has some, for training."""
    if len(getattr(model, "auxiliaries", ())):
        found: tuple[Tensor, tuple[Tensor, ...]] = model.forward_with_auxiliaries(images)
        return found
    return segment(model, images), ()
