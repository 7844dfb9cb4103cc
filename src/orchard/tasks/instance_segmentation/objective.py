"""Which objects are on an image, and which pixels belong to each?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from orchard.data.boxes.contracts import Objects
from orchard.data.boxes.loader import DetectionBatch, InstanceBatch
from orchard.data.boxes.object_masks import Masks
from orchard.models.detection.contract import Found
from orchard.models.detection.masks import paste_mask
from orchard.tasks.object_detection.objective import OwnObjective, Predictions

LIKELY = 0.5  # probability from which a pixel is the object's


@dataclass(frozen=True)
class InstancePredictions(Predictions):
    """Predictions with masks, of the size of the image as it is stored."""

    masks: tuple[Masks, ...]  # of each image, one for each of its answers

    @classmethod
    def of(cls, found: Found, loss: Tensor, batch: DetectionBatch) -> Self:
        height, width = batch.sizes[0].tolist()
        masks = encode(found, (height, width))
        return cls(**vars(Predictions.of(found, loss, batch)), masks=(masks,))

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        order = torch.cat([part.indices for part in parts]).argsort()
        masks = [one for part in parts for one in part.masks]
        return cls(**vars(Predictions.merge(parts)), masks=tuple(masks[n] for n in order.tolist()))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        columns = dict(tensors)
        code, lengths, sizes = (columns.pop(name) for name in ("mask_code", "mask_lengths", "mask_sizes"))
        whole, at, runs = code.numpy().tobytes(), 0, []
        for length in lengths.tolist():
            runs.append(whole[at : at + length])
            at += length
        masks, at = [], 0
        for count, (height, width) in zip((columns["scores"] >= 0).sum(1).tolist(), sizes.tolist(), strict=True):
            masks.append(Masks(height, width, tuple(runs[at : at + count])))
            at += count
        return cls(**columns, masks=tuple(masks))

    def tensors(self) -> dict[str, Tensor]:
        """The masks as their runs, one after the other, and how many bytes each takes."""
        columns = {name: column for name, column in vars(self).items() if name != "masks"}
        runs = [one for masks in self.masks for one in masks.runs]
        return columns | {
            "mask_code": torch.from_numpy(np.frombuffer(b"".join(runs), np.uint8).copy()),
            "mask_lengths": torch.tensor([len(one) for one in runs], dtype=torch.int64),
            "mask_sizes": torch.tensor([(one.height, one.width) for one in self.masks], dtype=torch.int64),
        }

    def overlaps(self, place: int, answers: Tensor, objects: Objects) -> Tensor:
        if objects.masks is None:
            raise ValueError("expected objects with masks")
        return self.masks[place].only(answers.numpy()).overlaps(objects.masks)

    def masks_of(self, place: int) -> Masks:
        return self.masks[place]


class InstanceObjective(OwnObjective):
    """The sum of the losses that a model brings along, that of masks among them."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.logged = (*self.logged, "box_ap", "box_ap50")

    @property
    def answers(self) -> type[Predictions]:
        return InstancePredictions

    def targets(self, batch: DetectionBatch) -> dict[str, Any]:
        assert isinstance(batch, InstanceBatch)
        return super().targets(batch) | {"masks": batch.masks.rows()}


def encode(found: Found, size: tuple[int, int]) -> Masks:
    """The masks of what was found on an image of this height and width, made and encoded one by one."""
    assert found.masks is not None
    runs: list[bytes] = []
    for mask, box in zip(found.masks.float().cpu(), found.boxes.float().cpu(), strict=True):
        runs += Masks.of(paste_mask(mask, box, size)[None] > LIKELY).runs
    return Masks(*size, tuple(runs))
