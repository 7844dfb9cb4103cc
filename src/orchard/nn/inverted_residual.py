"""The inverted residual block: wide inside, narrow on the line (Sandler et al. 2018, arXiv:1801.04381).

A bottleneck turned round: 1x1 up, a depthwise convolution where there are many channels (which costs little), 1x1 down
without an activation, since a ReLU would throw away what a narrow map holds. MnasNet and EfficientNet weigh the
channels inside by squeeze and excitation.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from orchard.nn.conv_norm import Norm, conv_norm, round_width
from orchard.nn.squeeze_excite import SqueezeExcite


class InvertedResidual(nn.Module):
    """(B, inputs, H, W) → (B, outputs, H / stride, W / stride), added to the input where the shape stays.

    Args:
        inputs: channels of what comes in.
        outputs: channels of what goes out.
        kernel: side of the depthwise kernel.
        stride: of the depthwise convolution.
        expansion: how many times wider the block is inside; at 1 there is no first convolution.
        squeeze: hidden units of squeeze and excitation, as a share of `inputs` (not of the width inside); 0: none.
        same_padding: TensorFlow's SAME padding at a stride.
        norm: makes a norm of that many channels.
        activation: behind the first two convolutions and in squeeze and excitation.
        drop_path: probability that a sample skips the block in training.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        squeeze: float,
        same_padding: bool,
        norm: Norm,
        activation: type[nn.Module],
        drop_path: float,
    ):
        super().__init__()
        hidden = round_width(inputs * expansion)
        part = partial(conv_norm, same_padding=same_padding, norm=norm)
        self.expand = part(inputs, hidden, 1, activation=activation) if expansion != 1 else nn.Identity()
        self.depthwise = part(hidden, hidden, kernel, stride=stride, groups=hidden, activation=activation)
        self.squeeze: nn.Module = nn.Identity()
        if squeeze:
            self.squeeze = SqueezeExcite(hidden, int(inputs * squeeze), activation(inplace=True), nn.Sigmoid())
        self.project = part(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + self.drop_path(out) if self.residual else out
