"""Convolutions as Google's Big Transfer networks have them: standardised kernels, TensorFlow's SAME padding.

Weight standardisation is Qiao et al. 2019 (arXiv:1903.10520); the form is that of Kolesnikov et al. 2020
(arXiv:1912.11370), whose kernels can only be used with it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad (B, C, H, W) so that a window of `kernel` and `stride` gives ceil(H / stride) rows.

    Where the total is odd, the extra row and column go to the bottom and the right.
    """
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):  # F.pad counts from the last axis
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value) if any(pads) else x


class StdConv2d(nn.Conv2d):
    """A convolution without bias whose kernels are brought to mean 0 and spread 1 before use, padded SAME.

    (B, in, H, W) → (B, out, ceil(H / stride), ceil(W / stride)). `eps` is added to the standard deviation, not
    to the variance.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, eps: float):
        super().__init__(in_channels, out_channels, kernel, stride, bias=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        dims = (1, 2, 3)
        kernels = self.weight - self.weight.mean(dims, keepdim=True)
        kernels = kernels / (self.weight.std(dims, correction=0, keepdim=True) + self.eps)
        x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, kernels.to(x.dtype), stride=self.stride)


class SameMaxPool2d(nn.Module):
    """The largest value of each window, padded SAME, (B, C, H, W) → (B, C, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, kernel: int, stride: int):
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_same(x, self.kernel, self.stride, value=float("-inf")), self.kernel, self.stride)
