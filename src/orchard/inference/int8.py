"""Weights in eight bits: a quarter of the bytes of float32, for models whose time is the reading of their weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A linear map with weights (out, in) as int8 and one scale per output; arithmetic in bf16.

    Rounded to the nearest of 255 steps between the row's largest weight and its negative.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        flat = torch._weight_int8pack_mm(x.flatten(0, -2), self.get_buffer("weight"), self.get_buffer("scale"))
        y = flat.view(*x.shape[:-1], flat.shape[-1])
        return y if self.bias is None else y + self.bias


def quantise_linears(model: nn.Module) -> None:
    """Put an `Int8Linear` in the place of every linear map of a bf16 model, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child))
