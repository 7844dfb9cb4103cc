"""LeNet-5 and its kin (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
recognition", section II-B and figure 2).

Convolution, subsampling, convolution, subsampling, then fully connected layers. Four wirings of the idea:
`LeNet5` as it is built today, `LeNet5Of1998` as the paper has it, Caffe's, and the plain network of two hidden
layers that the paper compares with.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images


@dataclass(frozen=True)
class LeNetConfig:
    wiring: str  # "modern", "1998", "caffe" or "300-100"
    image_size: int = 32
    in_channels: int = 1
    num_classes: int = 10

    @property
    def map_side(self) -> int:
        """Side of the maps that two 5x5 convolutions and two subsamplings leave."""
        return ((self.image_size - 4) // 2 - 4) // 2

    def __post_init__(self) -> None:
        if self.wiring not in WIRINGS:
            raise ValueError(f"wiring is one of {', '.join(WIRINGS)}, got {self.wiring!r}")
        if self.wiring != "300-100" and self.image_size < 16:
            raise ValueError(f"image_size is at least 16, got {self.image_size}")


class LeNet(nn.Module):
    """What the wirings share. Pictures (B, C, S, S) of the configured size, normalised, to logits (B, num_classes)."""

    head_name = "head"

    def __init__(self, config: LeNetConfig):
        super().__init__()
        self.config = config

    def check(self, images: Tensor) -> None:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [(f"{name}.",) for name, module in self.named_children() if any(True for _ in module.parameters())]


def start(layer: nn.Conv2d | nn.Linear, bound: float) -> None:
    """Weights uniform within ±bound, no bias."""
    assert layer.bias is not None
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)


def fan_in(layer: nn.Conv2d | nn.Linear) -> int:
    """How many inputs a unit of the layer has."""
    return layer.weight[0].numel()


class ConvolutionalLeNet(LeNet):
    """The wirings with maps: two convolutions, each subsampled."""

    strides = (2, 4)
    channels: tuple[int, int] = (6, 16)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The maps after each subsampling, finest first, (B, channels, about S / stride, about S / stride)."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """The maps after the second subsampling, (B, C, s, s)."""
        return self.feature_maps(images)[-1]


class LeNet5(ConvolutionalLeNet):
    """As commonly built today: average pools, a full third layer, tanh, a linear head."""

    classifier_layers = ("c5", "f6", "head")

    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.c1 = nn.Conv2d(config.in_channels, 6, 5)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.c5 = nn.Linear(16 * config.map_side**2, 120)
        self.f6 = nn.Linear(120, 84)
        self.head = nn.Linear(84, config.num_classes)
        for layer in (self.c1, self.c3, self.c5, self.f6, self.head):
            fan_out = layer.weight.numel() // layer.weight.shape[1]
            start(layer, (6 / (fan_in(layer) + fan_out)) ** 0.5)  # Glorot and Bengio 2010, made for tanh

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        self.check(images)
        first = F.avg_pool2d(torch.tanh(self.c1(images)), 2)
        return [first, F.avg_pool2d(torch.tanh(self.c3(first)), 2)]

    def forward(self, images: Tensor) -> Tensor:
        x = torch.tanh(self.c5(self.features(images).flatten(1)))
        x = torch.tanh(self.f6(x))
        logits: Tensor = self.head(x)
        return logits


def squash(x: Tensor) -> Tensor:
    """The paper's 1.7159 tanh(2x / 3), which maps ±1 to ±1 (equation 6, appendix A)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum of each 2x2 square times one learned number per map, plus another, (B, C, H, W) → (B, C, H/2, W/2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * F.avg_pool2d(x, 2) * self.weight + self.bias


# Table I of the paper: the maps of S2 that each map of C3 sees.
C3_SEES: tuple[tuple[int, ...], ...] = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class PartialConv(nn.Module):
    """A 5x5 convolution in which each output sees only the inputs its row of the table names.

    `weight` holds the kernels that exist, row after row of the table; the rest are zeros that nobody learns.
    """

    place: Tensor

    def __init__(self, inputs: int, table: tuple[tuple[int, ...], ...]):
        super().__init__()
        self.inputs = inputs
        self.fan_ins = [25 * len(row) for row in table for _ in row]  # of the unit behind each kernel
        self.weight = nn.Parameter(torch.empty(len(self.fan_ins), 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(table)))
        kernels = iter(range(len(self.fan_ins)))
        place = [[next(kernels) if i in row else len(self.fan_ins) for i in range(inputs)] for row in table]
        self.register_buffer("place", torch.tensor(place), persistent=False)  # (outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        kernels = torch.cat([self.weight, self.weight.new_zeros(1, 5, 5)])
        dense = kernels.index_select(0, self.place.flatten()).view(-1, self.inputs, 5, 5)
        return F.conv2d(x, dense, self.bias)


# The ten digits, drawn 7 wide and 12 high.
DIGITS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...#...  ..###..  .#####.  ....##.  .######  ..####.  #######  ..###..  ..###..
.##.##.  ..##...  .##.##.  ##...##  ...###.  .#.....  .##....  ##...##  .##.##.  .##.##.
##...##  .###...  ##...##  .....##  ..####.  .#.....  ##.....  .....##  ##...##  ##...##
##...##  ...#...  .....##  .....##  .##.##.  .####..  ##.....  ....##.  ##...##  ##...##
##...##  ...#...  ....##.  ..####.  ##..##.  ....##.  ######.  ....##.  .##.##.  ##..###
##...##  ...#...  ...##..  .....##  ##..##.  .....##  ###..##  ...##..  ..###..  .####.#
##...##  ...#...  ..##...  .....##  #######  .....##  ##...##  ...##..  .##.##.  .....##
##...##  ...#...  .##....  .....##  ....##.  .....##  ##...##  ..##...  ##...##  ....##.
.##.##.  ...#...  ##.....  ##...##  ....##.  ##..##.  .##.##.  ..##...  .##.##.  ...##..
..###..  .#####.  #######  .#####.  ....##.  .####..  ..###..  ..##...  ..###..  .###...
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def class_codes(num_classes: int) -> Tensor:
    """A target of 84 signs for each class, (num_classes, 84): the pictures above for ten, else fixed random signs."""
    if num_classes == 10:
        rows = [line.split() for line in DIGITS.strip().splitlines()]
        pictures = ["".join(row[digit] for row in rows) for digit in range(10)]
        return torch.tensor([[1.0 if dot == "#" else -1.0 for dot in picture] for picture in pictures])
    draw = random.Random(1998)
    codes: dict[int, None] = {}  # in order, none twice
    while len(codes) < num_classes:
        codes[draw.getrandbits(84)] = None
    return torch.tensor([[1.0 if code >> bit & 1 else -1.0 for bit in range(84)] for code in codes])


class EuclideanOutput(nn.Module):
    """Minus the squared distance of x to each class's code, (B, 84) → (B, num_classes) (equation 7).

    The paper's output is the distance itself, to be small for the right class; with the sign turned it is a
    logit, and cross entropy on it is the paper's discriminative criterion (equation 9) without its constant.
    """

    codes: Tensor

    def __init__(self, num_classes: int):
        super().__init__()
        self.register_buffer("codes", class_codes(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None, :] - self.codes).square().sum(-1)


class LeNet5Of1998(ConvolutionalLeNet):
    """As the paper has it: 60,000 trainable numbers at 32 pixels."""

    classifier_layers = ("c5", "f6", "head")

    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.c1 = nn.Conv2d(config.in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = PartialConv(6, C3_SEES)
        self.s4 = Subsampling(16)
        self.c5 = nn.Linear(16 * config.map_side**2, 120)
        self.f6 = nn.Linear(120, 84)
        self.head = EuclideanOutput(config.num_classes)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Every weight uniform within ±2.4 / fan-in of its unit (appendix A), every bias zero."""
        for layer in (self.c1, self.c5, self.f6):
            start(layer, 2.4 / fan_in(layer))
        for subsampling in (self.s2, self.s4):
            nn.init.uniform_(subsampling.weight, -2.4 / 4, 2.4 / 4)
        for kernel, inputs in zip(self.c3.weight, self.c3.fan_ins, strict=True):
            nn.init.uniform_(kernel, -2.4 / inputs, 2.4 / inputs)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        self.check(images)
        s2 = squash(self.s2(squash(self.c1(images))))
        return [s2, squash(self.s4(squash(self.c3(s2))))]

    def forward(self, images: Tensor) -> Tensor:
        x = squash(self.c5(self.features(images).flatten(1)))
        logits: Tensor = self.head(squash(self.f6(x)))
        return logits


class CaffeLeNet(ConvolutionalLeNet):
    """Caffe's example: wider, max pools, and no ReLU before the 500 hidden units (examples/mnist)."""

    channels = (20, 50)
    classifier_layers = ("ip1", "head")

    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.conv1 = nn.Conv2d(config.in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(50 * config.map_side**2, 500)
        self.head = nn.Linear(500, config.num_classes)
        for layer in (self.conv1, self.conv2, self.ip1, self.head):
            start(layer, (3 / fan_in(layer)) ** 0.5)  # Caffe's "xavier" looks at the fan-in alone

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        self.check(images)
        first = F.max_pool2d(self.conv1(images), 2)
        return [first, F.max_pool2d(self.conv2(first), 2)]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.ip1(self.features(images).flatten(1))))
        return logits


class LeNet300100(LeNet):
    """No convolution: hidden layers of 300 and 100 squashed units (section III-C of the paper)."""

    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.fc1 = nn.Linear(config.in_channels * config.image_size**2, 300)
        self.fc2 = nn.Linear(300, 100)
        self.head = nn.Linear(100, config.num_classes)
        for layer in (self.fc1, self.fc2, self.head):
            start(layer, 2.4 / fan_in(layer))

    def features(self, images: Tensor) -> Tensor:
        """The second hidden layer as a map of one pixel, (B, 100, 1, 1)."""
        self.check(images)
        x = squash(self.fc1(images.flatten(1)))
        return squash(self.fc2(x))[:, :, None, None]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits


WIRINGS: dict[str, type[LeNet]] = {
    "modern": LeNet5,
    "1998": LeNet5Of1998,
    "caffe": CaffeLeNet,
    "300-100": LeNet300100,
}

VARIANTS = {
    "lenet5": LeNetConfig("modern"),
    "lenet5_1998": LeNetConfig("1998"),
    "lenet_caffe": LeNetConfig("caffe", image_size=28),
    "lenet_300_100": LeNetConfig("300-100", image_size=28),
}


def build(config: LeNetConfig) -> LeNet:
    return WIRINGS[config.wiring](config)


LANDMARK = Landmark(model=build, variants=VARIANTS)
