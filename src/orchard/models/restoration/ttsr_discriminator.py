"""The discriminator that TTSR learns against (Yang et al. 2020, section 3.3; the official code says its layers)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.checks import check_images

WIDTHS = (32, 64, 128, 256, 512)
HIDDEN = 1024
SLOPE = 0.2  # of the leaky ReLU


class TextureDiscriminator(nn.Module):
    """RGB (B, 3, side, side) in [-1, 1] to scores (B,), larger for real ones.

    At every width two 3x3 convolutions, of which the second halves the resolution, then two linear layers; no norms.
    (The official code counts `side / 32` twice to the inputs of the linear layer, which fits multiples of 32 alone.)
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side
        self.convolutions = nn.ModuleList()
        inputs = 3
        for width in WIDTHS:
            self.convolutions += [
                nn.Conv2d(inputs, width, 3, padding=1),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
            ]
            inputs = width
        last = -(-side // 2 ** len(WIDTHS))
        self.hidden = nn.Linear(inputs * last**2, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, 3, (self.side, self.side))
        x = images
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
        return self.score(F.leaky_relu(self.hidden(x.flatten(1)), SLOPE)).squeeze(1)
