"""ZFNet (Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv:1311.2901).

AlexNet, changed where pictures of its inside showed it to be blind: the first kernels are smaller and lie closer
(7x7 at stride 2 in place of 11x11 at stride 4), and every layer sees all channels of the one below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images
from orchard.nn.fan_in import initialise_by_fan_in


@dataclass(frozen=True)
class ZFNetConfig:
    widths: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    hidden: int = 4096  # units in each of the two fully connected layers
    strides: tuple[int, int] = (2, 2)  # of the first two convolutions
    pool_size: int = 6  # side of the map that the first hidden layer sees
    dropout: float = 0.5
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the third pool."""
        second = (4 - 1) * self.strides[1] + 5  # pools of 3 and stride 2 need twice the side that they give
        return (2 * second - 1) * self.strides[0] + 7 - 2

    def __post_init__(self) -> None:
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


class ZFNet(nn.Module):
    """Pictures (B, C, H, W) of at least 47 pixels, normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("fc1", "fc2", "head")

    def __init__(self, config: ZFNetConfig):
        super().__init__()
        self.config = c = config
        w1, w2, w3, w4, w5 = c.widths
        first, second = c.strides
        self.conv1 = nn.Conv2d(c.in_channels, w1, 7, stride=first, padding=1)  # 224 → 110 (figure 3)
        self.conv2 = nn.Conv2d(w1, w2, 5, stride=second)  # 55 → 26
        self.conv3 = nn.Conv2d(w2, w3, 3, padding=1)
        self.conv4 = nn.Conv2d(w3, w4, 3, padding=1)
        self.conv5 = nn.Conv2d(w4, w5, 3, padding=1)
        # The paper names no constants: AlexNet's, whose alpha PyTorch divides by the five channels of the window
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # 110 → 55, 26 → 13, 13 → 6
        self.average = nn.AdaptiveAvgPool2d(c.pool_size)  # nothing to do at the published size
        self.strides = (2 * first, 4 * first * second, 8 * first * second)
        self.channels = (w1, w2, w5)
        self.fc1 = nn.Linear(w5 * c.pool_size**2, c.hidden)
        self.fc2 = nn.Linear(c.hidden, c.hidden)
        self.head = nn.Linear(c.hidden, c.num_classes)
        self.dropout = nn.Dropout(c.dropout)
        initialise_by_fan_in(self, self.head)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """What each of the three pools leaves, finest first, (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        first = self.norm(self.pool(F.relu(self.conv1(images))))
        second = self.norm(self.pool(F.relu(self.conv2(first))))
        x = F.relu(self.conv3(second))
        x = F.relu(self.conv4(x))
        x = F.relu(self.conv5(x))
        return [first, second, self.pool(x)]

    def features(self, images: Tensor) -> Tensor:
        """What the third pool leaves, (B, C, h, w); 6x6 at the published size."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        x = self.average(self.features(images)).flatten(1)
        x = self.dropout(F.relu(self.fc1(x)))
        x = self.dropout(F.relu(self.fc2(x)))
        logits: Tensor = self.head(x)
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [(f"{name}.",) for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "head")]


VARIANTS = {
    "zfnet": ZFNetConfig(),
    "zfnet_wide": ZFNetConfig((96, 256, 512, 1024, 512)),  # the last row of table 3
    "zfnet_nano": ZFNetConfig(
        (24, 48, 64, 64, 64), hidden=192, strides=(1, 1), pool_size=2, dropout=0.2, image_size=32, in_channels=1,
        num_classes=10,
    ),
}  # fmt: skip

LANDMARK = Landmark(model=ZFNet, variants=VARIANTS)
