"""The loss of super-resolution: absolute (Lim et al. 2017, section 4.2) or squared (Dong et al. 2014, eq. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.patches import PatchBatch
from orchard.tasks.super_resolution.metrics import METRICS
from orchard.tasks.super_resolution.upscaling import network_of, to_network
from orchard.training.phases import one_phase

if TYPE_CHECKING:
    from orchard.report.run_page import Curve


class SuperResolution:
    """The loss and the metrics of training."""

    logged = (*METRICS, *(f"bicubic_{name}" for name in METRICS))
    curves: tuple[Curve, ...] = ()  # of the report, beside those of every training
    remarks: tuple[str, ...] = ()

    def __init__(self, loss: Literal["l1", "mse"]):
        self.difference = F.l1_loss if loss == "l1" else F.mse_loss
        self.phases = one_phase(self.loss)

    def loss(self, model: nn.Module, batch: PatchBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean difference of values, on a scale on which those of pixels go from 0 to 1."""
        network = network_of(model)
        scale = network.scales[0] if network.enlarged else batch.high.shape[-1] // batch.low.shape[-1]
        found = network.upscale(to_network(batch.low, model), scale).float()
        low, high = network.value_range
        return self.difference(found / (high - low), to_network(batch.high, model) / (high - low)), {}
