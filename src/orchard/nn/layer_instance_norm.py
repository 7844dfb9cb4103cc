"""Layer-instance normalisation: each channel learns how far it is normalised by itself or with all others.

Kim et al. 2019 (arXiv:1907.10830, equation 1), as the authors' PyTorch code computes it: the variances are unbiased.
Legend: B images, C channels of a map of h x w.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-5
MOSTLY_INSTANCE = 0.9  # rho of the adaptive norm at the start; that of the plain one is 0


class MixedNorm(nn.Module):
    """What both norms have in common: `rho` (1, C, 1, 1), 1 for a channel's own statistics, 0 for those of all."""

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), start))

    def normalised(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → the same in float32: under autocast small maps would lose what sets channels apart."""
        x = x.float()
        own, whole = (
            (x - mean) * (variance + EPS).rsqrt()
            for variance, mean in (torch.var_mean(x, dim, keepdim=True) for dim in ((2, 3), (1, 2, 3)))
        )
        return self.rho * own + (1 - self.rho) * whole


class LayerInstanceNorm(MixedNorm):
    """With a gain and a bias of its own (ILN)."""

    def __init__(self, channels: int):
        super().__init__(channels, start=0.0)
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.normalised(x) * self.gain + self.bias


class AdaptiveLayerInstanceNorm(MixedNorm):
    """With a gain and a bias (B, C) that follow from the image (AdaLIN)."""

    def __init__(self, channels: int):
        super().__init__(channels, start=MOSTLY_INSTANCE)

    def forward(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return self.normalised(x) * gain[:, :, None, None] + bias[:, :, None, None]


@torch.no_grad()
def clip_rho(model: nn.Module) -> None:
    """Bring every rho back between 0 and 1, as after each update of a generator."""
    for module in model.modules():
        if isinstance(module, MixedNorm):
            module.rho.clamp_(0, 1)
