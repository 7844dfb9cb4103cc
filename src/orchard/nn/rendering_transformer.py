"""FPT's rendering transformer: a coarse level's channels, weighed by a finer one, and what the finer one looks like.

Zhang et al. 2020 (arXiv:2007.09451), section 3.4: w = GAP(K), Q_att = Q · w, y = F_add(F_conv(Q_att), F_sconv(V)), in
the form that the authors released: w passes a convolution, a norm and a ReLU, the sum a ReLU and no convolution more.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.conv import conv


class RenderingTransformer(nn.Module):
    """A coarse map (B, channels, h, w) and a fine one (B, channels, factor · h, factor · w) to (B, channels, h, w).

    The fine map shrinks by one convolution with a stride of 2. By 4 and 8, where the released code fails, it is
    averaged first to twice the coarse one's sides: every pixel has a say, and the weights are of the same shapes. Of
    an odd number of rows or columns the last one stands alone. Levels of one size (`factor` 1) have no stride.
    """

    def __init__(self, channels: int, factor: int):
        super().__init__()
        self.average = max(1, factor // 2)
        self.weigh = conv(channels, channels, 1)
        self.weigh_norm = MeanNorm(channels)
        self.refine = conv(channels, channels, 3)
        self.refine_norm = nn.BatchNorm2d(channels)
        self.shrink = conv(channels, channels, 3, stride=min(2, factor))
        self.shrink_norm = nn.BatchNorm2d(channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        weights = F.relu(self.weigh_norm(self.weigh(fine.mean((2, 3), keepdim=True))))
        if self.average > 1:
            fine = F.avg_pool2d(fine, self.average, ceil_mode=True)
        return F.relu(self.refine_norm(self.refine(coarse)) * weights + self.shrink_norm(self.shrink(fine)))


class MeanNorm(nn.BatchNorm2d):
    """Of maps of one cell: a batch of one image, which has no variance, is normed by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
