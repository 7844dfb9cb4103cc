"""AlexNet in its two published forms.

The network of 2012 (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural
networks"): two halves that meet only at the third layer, and a response norm across channels. The network of
2014 (Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997): one
column, fewer channels, no norm. `alexnet` is the later one, as torchvision has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images


@dataclass(frozen=True)
class AlexNetConfig:
    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
    hidden: int = 4096  # units in each of the two fully connected layers
    groups: int = 1  # 2: layers 2, 4 and 5 see only their own half of the channels below (two GPUs in 2012)
    response_norm: bool = False  # local response normalisation behind layers 1 and 2 (2012, section 3.3)
    first_padding: int = 2
    dropout: tuple[float, float, float] = (0.5, 0.5, 0.0)  # before the two hidden layers and before the head
    start: str = "torch"  # "torch": as its layers start; "2012": as section 5 of the paper; "he": by fan-in
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the third pool."""
        return 67 - 2 * self.first_padding

    def __post_init__(self) -> None:
        if self.start not in ("torch", "2012", "he"):
            raise ValueError(f"start is one of torch, 2012, he, got {self.start!r}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


class AlexNet(nn.Module):
    """Pictures (B, C, H, W) of at least 63 pixels (67 in 2012), normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("fc1", "fc2", "head")
    strides = (8, 16, 32)

    def __init__(self, config: AlexNetConfig):
        super().__init__()
        self.config = c = config
        w1, w2, w3, w4, w5 = c.widths
        self.channels = (w1, w2, w5)
        self.conv1 = nn.Conv2d(c.in_channels, w1, 11, stride=4, padding=c.first_padding)
        self.conv2 = nn.Conv2d(w1, w2, 5, padding=2, groups=c.groups)
        self.conv3 = nn.Conv2d(w2, w3, 3, padding=1)
        self.conv4 = nn.Conv2d(w3, w4, 3, padding=1, groups=c.groups)
        self.conv5 = nn.Conv2d(w4, w5, 3, padding=1, groups=c.groups)
        # PyTorch divides alpha by the five channels of the window, the paper does not: alpha = 1e-4 there
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0) if c.response_norm else nn.Identity()
        self.pool = nn.MaxPool2d(3, stride=2)  # overlapping (2012, section 3.4)
        self.average = nn.AdaptiveAvgPool2d(6)  # nothing to do at the published size
        self.fc1 = nn.Linear(w5 * 6 * 6, c.hidden)
        self.fc2 = nn.Linear(c.hidden, c.hidden)
        self.head = nn.Linear(c.hidden, c.num_classes)
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(p) for p in c.dropout)
        if c.start != "torch":
            self.initialise()

    def initialise(self) -> None:
        """2012: spread 0.01, biases 1 where that keeps ReLUs awake. He: variance 2 / fan-in below a faint head."""
        awake = (self.conv2, self.conv4, self.conv5, self.fc1, self.fc2) if self.config.start == "2012" else ()
        for layer in self.children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                faint = self.config.start == "2012" or layer is self.head
                nn.init.normal_(layer.weight, std=0.01 if faint else (2 / layer.weight[0].numel()) ** 0.5)
                assert layer.bias is not None
                nn.init.constant_(layer.bias, 1.0 if layer in awake else 0.0)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """What each of the three pools leaves, finest first, (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        first = self.pool(self.norm(F.relu(self.conv1(images))))
        second = self.pool(self.norm(F.relu(self.conv2(first))))
        x = F.relu(self.conv3(second))
        x = F.relu(self.conv4(x))
        x = F.relu(self.conv5(x))
        return [first, second, F.max_pool2d(x, 3, stride=2)]

    def features(self, images: Tensor) -> Tensor:
        """What the third pool leaves, (B, C, h, w); 6x6 at the published size."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        x = self.average(self.features(images)).flatten(1)
        x = F.relu(self.fc1(self.dropout1(x)))
        x = F.relu(self.fc2(self.dropout2(x)))
        logits: Tensor = self.head(self.dropout3(x))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [(f"{name}.",) for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "head")]


PAPER_2012 = AlexNetConfig(
    (96, 256, 384, 384, 256),
    groups=2,
    response_norm=True,
    first_padding=0,
    dropout=(0.0, 0.5, 0.5),
    start="2012",
    image_size=227,
)


def small(config: AlexNetConfig, image_size: int) -> AlexNetConfig:
    """The same network for a laptop: few channels, smaller pictures, weaker dropout, and a start by fan-in, since
    the published ones suit only the published widths."""
    first, second, third = (0.4 * p for p in config.dropout)
    return replace(
        config,
        widths=(32, 64, 96, 64, 64),
        hidden=256,
        dropout=(first, second, third),
        start="he",
        image_size=image_size,
        num_classes=10,
    )


VARIANTS = {
    "alexnet": AlexNetConfig(),
    "alexnet_nano": small(AlexNetConfig(), 96),
    "alexnet_2012": PAPER_2012,
    "alexnet_2012_nano": small(PAPER_2012, 99),
}


def torchvision_names(config: AlexNetConfig) -> list[tuple[str, str]]:
    """torchvision counts every layer of its two sequences, ReLUs and pools too."""
    convolutions = [(f"conv{i}.{{}}", f"features.{place}.{{}}") for i, place in enumerate((0, 3, 6, 8, 10), 1)]
    return [*convolutions, ("fc1.{}", "classifier.1.{}"), ("fc2.{}", "classifier.4.{}"), ("head.{}", "classifier.6.{}")]


LANDMARK = Landmark(model=AlexNet, variants=VARIANTS, names={"torchvision": torchvision_names})
