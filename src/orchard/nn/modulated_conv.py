"""A convolution whose input channels are scaled by a style (Karras et al. 2019, arXiv:1912.04958, section 2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.equalised import EqualisedLinear
from orchard.nn.filtered_resampling import LowPass

EPSILON = 1e-8  # added to the squared norm that demodulation divides by


class ModulatedConv2d(nn.Module):
    """Maps (B, inputs, H, W) and styles (B, D) → (B, outputs, H, W), or (B, outputs, 2H, 2W) where it upsamples.

    Equations 1 and 3 scale the weights of each sample by its style and divide them by their norm over the inputs and
    the kernel. Weights enter linearly, so that here the maps are scaled before one convolution of the whole batch, and
    its result divided after: the same function without a set of weights for every sample.

    Args:
        style: numbers of a style.
        demodulate: whether each output is divided by the norm of its weights.
        upsample: whether the side is doubled, by a transposed convolution and the filter.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, *, demodulate: bool = True, upsample: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.style = EqualisedLinear(style, inputs, bias=1.0)
        self.gain = (inputs * kernel**2) ** -0.5
        self.padding = kernel // 2
        self.demodulate = demodulate
        self.blur = LowPass(1, 1, gain=4.0) if upsample else None

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        scales = self.style(styles)
        # Demodulation takes the gain away again: it is left out there, and epsilon is larger by as much.
        weight = self.weight if self.demodulate else self.weight * self.gain
        x = x * scales[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=self.padding)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return x
        norms = scales.square() @ weight.square().sum((2, 3)).T
        return x * torch.rsqrt(norms + EPSILON / self.gain**2)[:, :, None, None]
