"""Up- and downsampling with a low-pass filter, so that neither shows aliases (Zhang 2019, arXiv:1904.11486).

As StyleGAN2 has it (Karras et al. 2019, arXiv:1912.04958, appendix B): the filter is separable, with taps [1, 3, 3, 1],
and images end in zeros. Plain PyTorch: the filter is a convolution of each channel by itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (1.0, 3.0, 3.0, 1.0)


def kernel_of(taps: tuple[float, ...], gain: float) -> Tensor:
    """The separable filter of these taps, (K, K), whose values sum to `gain`."""
    row = torch.tensor(taps)
    kernel = torch.outer(row, row)
    return kernel * (gain / kernel.sum())


class LowPass(nn.Module):
    """The filter over (B, C, H, W), with this much zero padding before and after each axis and this stride.

    `gain` is 4 after an upsampling that has put three zeros beside every value, else 1. StyleGAN's taps are [1, 2, 1].
    """

    kernel: Tensor

    def __init__(self, before: int, after: int, *, stride: int = 1, gain: float = 1.0, taps: tuple[float, ...] = TAPS):
        super().__init__()
        self.register_buffer("kernel", kernel_of(taps, gain)[None, None], persistent=False)
        self.padding, self.stride = [before, after, before, after], stride

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, -1, -1, -1)
        return F.conv2d(F.pad(x, self.padding), kernel, stride=self.stride, groups=channels)


def halving() -> LowPass:
    """(B, C, H, W) → (B, C, H / 2, W / 2): filtered, then every second pixel."""
    return LowPass(1, 1, stride=2)


class Doubling(nn.Module):
    """(B, C, H, W) → (B, C, 2H, 2W): zeros between the pixels, filtered."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel_of(TAPS, 4.0)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, -1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)
