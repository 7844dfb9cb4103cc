"""The loss of super-resolution: absolute (Lim et al. 2017, section 4.2) or squared (Dong et al. 2014, eq. 4); beside it
the contrastive loss of patches (Chen et al. 2020, eq. 5 to 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.patches import PatchBatch, ReferenceBatch
from orchard.errors import UsageError
from orchard.nn.contrastive_loss import patch_contrast
from orchard.tasks.super_resolution.metrics import METRICS
from orchard.tasks.super_resolution.upscaling import network_of, to_network
from orchard.training.phases import Phase, one_phase
from orchard.training.settings import OptimizerSettings

if TYPE_CHECKING:
    from orchard.report.run_page import Curve


class SuperResolution:
    """The loss and the metrics of training."""

    logged: tuple[str, ...] = (*METRICS, *(f"bicubic_{name}" for name in METRICS))
    remarks: tuple[str, ...] = ()  # what somebody who starts a training should know
    selects = True  # whether PSNR says which evaluation is the best

    def __init__(self, loss: Literal["l1", "mse"], contrastive_weight: float = 0.0):
        self.contrastive_weight = contrastive_weight
        if contrastive_weight:
            self.logged = (*self.logged, "pixel_loss", "contrastive_loss")
        self.difference = F.l1_loss if loss == "l1" else F.mse_loss
        self.phases: tuple[Phase, ...] = one_phase(self.loss)

    def curves(self) -> tuple[Curve, ...]:
        """Of the report, beside those of every training. Made when they are drawn: an evaluation draws nothing."""
        return ()

    def network(self, model: nn.Module) -> nn.Module:
        """The network in what learns."""
        return model

    def optimizer_settings(self, name: str, common: OptimizerSettings) -> OptimizerSettings:
        """Those of the optimizer of that name."""
        return common

    def loss(self, model: nn.Module, batch: PatchBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean difference of values, on a scale on which those of pixels go from 0 to 1."""
        network: Any = network_of(model)
        scale = network.scales[0] if network.enlarged else batch.high.shape[-1] // batch.low.shape[-1]
        given, (low, high) = to_network(batch.low, model), network.value_range
        truth = to_network(batch.high, model) / (high - low)
        more = {"reference": to_network(batch.reference, model)} if isinstance(batch, ReferenceBatch) else {}
        if not self.contrastive_weight:
            return self.difference(network.upscale(given, scale, **more).float() / (high - low), truth), {}
        if len(given) < 2:
            raise UsageError("the contrastive loss compares patches of a batch, which has one; set a larger batch_size")
        found, tokens = network.upscale_crops(given, scale)
        pixels, contrast = self.difference(found.float() / (high - low), truth), patch_contrast(tokens)
        logged = {"pixel_loss": pixels.detach(), "contrastive_loss": contrast.detach()}
        return pixels + self.contrastive_weight * contrast, logged
