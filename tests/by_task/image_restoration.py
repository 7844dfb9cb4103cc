"""Two images of random fields with strong noise; measured is the squared error over that of doing nothing."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_task import Hooks, Loss
from by_task.super_resolution import images

SIDE, SIGMA = 24, 0.3


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    low, high = model.value_range
    clean = F.interpolate(torch.rand(2, model.channels, SIDE // 4, SIDE // 4), scale_factor=4, mode="bicubic")
    noise = SIGMA * torch.randn_like(clean)
    noisy, strength = low + (high - low) * (clean + noise), torch.full((2,), SIGMA * (high - low))

    def loss() -> tuple[Tensor, Tensor]:
        found = (model.restore(noisy, strength) - low) / (high - low)
        error = (found - clean).square().mean() / noise.square().mean()
        return error, error.detach()

    return model, loss


HOOKS = Hooks(learn, learned=0.2, most_macs=150e6, data=images)
