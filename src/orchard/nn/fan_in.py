"""The start for rectified networks without norms, whose signal must keep its size on the way up."""

from __future__ import annotations

from torch import nn


def initialise_by_fan_in(model: nn.Module, head: nn.Conv2d | nn.Linear) -> None:
    """Normal weights of variance 2 / fan-in and no bias in every convolution and linear layer (He et al. 2015,
    arXiv:1502.01852, equation 10); half of it in the head."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is head else "relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
