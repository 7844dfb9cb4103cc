"""What the convolutional landmarks share: the plain convolution and the start that suits rectifiers."""

from __future__ import annotations

from torch import nn


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1 (odd kernels), for use with a norm."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)


def initialise_convolutions(model: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out and no bias in every convolution (He et al. 2015, arXiv:1502.01852)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_linears(model: nn.Module, std: float) -> None:
    """Normal weights of this spread and no bias in every fully connected layer."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
