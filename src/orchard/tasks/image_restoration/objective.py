"""The loss of image restoration: the squared difference (Zhang et al. 2016, equation 1), or the absolute one."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.patches import PatchBatch
from orchard.tasks.image_restoration.degradation import TOP, Degradation
from orchard.tasks.image_restoration.metrics import METRICS
from orchard.tasks.image_restoration.restoring import in_channels_of, restore
from orchard.training.phases import one_phase


class Restoration:
    """The loss and the metrics of training. Patches are degraded by `degradation`; None where they come in pairs."""

    logged = (*METRICS, *(f"degraded_{name}" for name in METRICS))

    def __init__(self, loss: Literal["l1", "mse"], degradation: Degradation | None):
        self.difference = F.l1_loss if loss == "l1" else F.mse_loss
        self.degradation = degradation
        self.phases = one_phase(self.loss)

    def loss(self, model: nn.Module, batch: PatchBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean difference of pixels from 0 to 1. What degrades follows from the step, by which torch is seeded."""
        clean = in_channels_of(batch.high, model)
        if self.degradation is None:
            found = restore(model, in_channels_of(batch.low, model), None)
        else:
            level = self.degradation.draw(len(clean), clean.device)
            found = restore(model, self.degradation.add(clean, level), level)
        return self.difference(found / TOP, clean / TOP), {}
