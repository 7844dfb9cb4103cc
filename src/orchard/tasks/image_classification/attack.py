"""Projected gradient descent: the images nearby that a classifier is most wrong about, and its accuracy on them.

Madry et al. 2017 (arXiv:1706.06083). For a finished model; what training does against it is robust.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import Preprocess

REACH = 2.5  # radii that all steps together could go: enough to reach the border from wherever it begins
Norm = Literal["l2", "linf"]


@dataclass(frozen=True)
class Attack:
    """Images may move by `radius`, in values of [0, 1], and stay within [0, 1]."""

    radius: float
    norm: Norm
    steps: int
    preprocess: Preprocess

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) as a model in evaluation mode takes them, moved to where its loss is large.

        It begins at the images themselves, so that the same are found every time.
        """
        mean, std = (
            torch.tensor(values, device=images.device).view(1, -1, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        pixels = images * std + mean
        moved = torch.zeros_like(pixels)
        for _ in range(self.steps):
            with torch.enable_grad():
                here = moved.requires_grad_()
                loss = F.cross_entropy(model((pixels + here - mean) / std).float(), labels, reduction="sum")
                (slope,) = torch.autograd.grad(loss, here)
            moved = self.inside(here.detach() + REACH * self.radius / self.steps * self.direction(slope))
            moved = (pixels + moved).clamp(0, 1) - pixels
        return (pixels + moved - mean) / std

    def direction(self, slope: Tensor) -> Tensor:
        """The step of length one that the loss grows most by."""
        if self.norm == "linf":
            return slope.sign()
        return slope / lengths(slope).clamp_min(1e-12)

    def inside(self, moved: Tensor) -> Tensor:
        """The nearest of what is within the radius."""
        if self.norm == "linf":
            return moved.clamp(-self.radius, self.radius)
        return moved * (self.radius / lengths(moved).clamp_min(self.radius))

    def describe(self) -> str:
        name = {"l2": "L2", "linf": "L-infinity"}[self.norm]
        return f"{self.steps} steps of PGD, {name} radius {self.radius:g} of values in [0, 1]"

    def accuracy(self, model: nn.Module, batches: Iterable[ImageBatch], labels: Tensor) -> float:
        """The share of images that are still taken for their classes.

        `labels` (N,) are those of the images of all batches by their index, as the model numbers them.
        """
        right = count = 0
        for batch in batches:
            wanted = labels[batch.indices].to(batch.images.device)
            with torch.no_grad():
                answers = model(self(model, batch.images, wanted)).argmax(1)
            right += int((answers == wanted).sum())
            count += len(wanted)
        return right / count


def lengths(rows: Tensor) -> Tensor:
    """The L2 norm of each image, (B, 1, 1, 1)."""
    return rows.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
