"""What the convolutional landmarks share: the plain convolution and He initialisation for ReLU."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1 (odd kernels), for use with a norm."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def initialise_convolutions(model: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out and no bias in every convolution (He et al. 2015, arXiv:1502.01852)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # where there are no numbers it only takes time
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_linears(model: nn.Module, std: float) -> None:
    """Normal weights of this spread and no bias in every fully connected layer."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)


def initialise_normal(model: nn.Module, std: float) -> None:
    """Normal weights of this standard deviation in every convolution, no bias, and batch norms with gains around one.

    How adversarial pairs start since DCGAN (Radford et al. 2015, arXiv:1511.06434, section 4, and the authors' code).
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=std)
            nn.init.zeros_(module.bias)


def glorot_uniform(layer: Layer, gain: float) -> Layer:
    """`layer` with uniform weights of variance 2 gain / (fan-in + fan-out) and no bias (Glorot and Bengio 2010).

    Fans count the weights that meet in one unit and those that leave one, so a stride of two divides one of them by
    four. `gain` is 1, or 2 between ReLUs.
    """
    fan_out, fan_in = len(layer.weight), layer.weight[0].numel()
    if not isinstance(layer, nn.Linear):
        kernel, stride = layer.weight[0, 0].numel(), layer.stride[0] * layer.stride[1]
        fan_in, fan_out = layer.in_channels * kernel, layer.out_channels * kernel
        if isinstance(layer, nn.ConvTranspose2d):
            fan_in //= stride
        else:
            fan_out //= stride
    bound = (6 * gain / (fan_in + fan_out)) ** 0.5  # √3 standard deviations
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
