"""Features that say how close a sample is to the others of its batch (Salimans et al. 2016, arXiv:1606.03498)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """(B, D) → (B, D + kernels): a sample's own features, and for each kernel how close the batch is to it.

    A kernel sees `dims` projections of the features; closeness is the sum over the batch, the sample itself included,
    of exp(-‖difference‖₁) (section 3.2). A generator whose images are all alike is told apart by that. Scores of a
    network with this layer depend on the whole batch. Takes memory for B x B x kernels x dims differences.

    Args:
        features: D.
        kernels: closenesses that are added.
        dims: projections that each is computed from.
        std: of the normal weights at the start.
    """

    def __init__(self, features: int, kernels: int, dims: int, std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, kernels, dims))
        nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        projected = torch.einsum("bf,fkd->bkd", x, self.weight)
        apart = (projected[:, None] - projected[None]).abs().sum(3)  # (B, B, kernels)
        return torch.cat([x, apart.neg().exp().sum(1)], dim=1)
