"""A convolution, its norm and its activation, as the networks for phones are built of them.

Google's networks were trained with TensorFlow's SAME padding, most PyTorch copies of them pad both sides alike. The
weights fit either way and the results differ, so that a network says which it has (`same_padding`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from orchard.nn.std_conv import pad_same

Norm = Callable[[int], nn.Module]  # of so many channels


def round_width(width: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `width`, the next larger one where that would lose more than a tenth.

    How widths that are multiplied become channels since MobileNet V2 (tensorflow/models, slim).
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


class SameConv2d(nn.Conv2d):
    """An odd convolution without bias, padded SAME: (B, in, H, W) → (B, out, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        # At stride 1 SAME is kernel // 2 on every side, which needs no copy of the map.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            x = pad_same(x, self.kernel_size[0], self.stride[0])
        return super().forward(x)


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    same_padding: bool = False,
    norm: Norm,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    """Convolution without bias, norm and, where one is named, activation: layers 0, 1 and 2 of a sequence.

    Args:
        inputs: channels of what comes in.
        outputs: channels of what goes out.
        kernel: side of the kernel, odd.
        stride: how many pixels the kernel moves.
        groups: parts of the channels that do not see each other; `inputs` of them make it depthwise.
        same_padding: TensorFlow's SAME padding in place of kernel // 2 on every side; they differ at a stride only.
        norm: makes the norm of that many channels.
        activation: a class that takes `inplace`, such as nn.ReLU6.
    """
    convolution: nn.Module
    if same_padding:
        convolution = SameConv2d(inputs, outputs, kernel, stride, groups)
    else:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = [convolution, norm(outputs)]
    return nn.Sequential(*layers) if activation is None else nn.Sequential(*layers, activation(inplace=True))


def initialise_by_fan_out(model: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out in every convolution and no bias, as Google's code has it.

    What leaves one channel of a convolution in groups goes to its own group only: kernel² outputs of a depthwise one.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # where there are no numbers it only takes time
            fan_out = module.weight.numel() // module.weight.shape[1] // module.groups
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
