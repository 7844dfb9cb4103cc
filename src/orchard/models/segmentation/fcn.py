"""FCN: fully convolutional networks for semantic segmentation (Long, Shelhamer and Darrell 2014, arXiv:1411.4038).

A classifier whose fully connected layers are convolutions says of every place what it sees there; transposed
convolutions bring that coarse answer back to the size of the picture, and scores of earlier, finer maps are added on
the way ("skips"). Here are the authors' networks on VGG-16, and torchvision's form: a dilated ResNet, a small head and
plain interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule, configuration
from orchard.models.segmentation.fcn_names import infer_config, official_names, torchvision_names
from orchard.models.vision.trunk import Trunk, create_trunk, frozen_settings
from orchard.models.vision.vgg import VGGConfig
from orchard.nn.conv import conv, initialise_convolutions

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class FCNConfig:
    """The authors' form: skips, learned upsampling, a first convolution padded so that no map is too small."""

    skips: int = 0  # earlier maps whose scores are added: 0, 1 and 2 are FCN-32s, -16s and -8s
    at_once: bool = False  # all skips are learned from the start, their maps scaled down
    trunk: str = "vgg16"  # a VGG
    trunk_settings: Settings | Mapping[str, Any] = ()  # fields of its configuration that differ from that name's
    padding: int = 100  # of the first convolution
    kernel: int = 7  # of the first hidden layer
    hidden: int = 4096
    dropout: float = 0.5
    image_size: int | tuple[int, int] = 500
    in_channels: int = 3
    num_classes: int = 21

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))


@dataclass(frozen=True)
class DilatedFCNConfig:
    """torchvision's form: the last two stages are dilated in place of their strides; no skips."""

    trunk: str = "resnet50"
    trunk_settings: Settings | Mapping[str, Any] = (("dilated_stages", 2),)
    auxiliary: bool = False  # a second head on the stage before the last, for training
    dropout: float = 0.1
    image_size: int | tuple[int, int] = 520
    in_channels: int = 3
    num_classes: int = 21

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))


def bilinear_kernel(channels: int, side: int) -> Tensor:
    """The weight of a transposed convolution that interpolates each channel by itself, (channels, channels, side,
    side); its stride is half its side."""
    line = 1 - (torch.arange(side) - (side - 1) / 2).abs() / ((side + 1) // 2)
    return torch.eye(channels)[:, :, None, None] * (line[:, None] * line)


class Scores(nn.Module):
    """All that has a number for each class: scores of maps, and what enlarges them (section 4.2)."""

    def __init__(self, classes: int, hidden: int, skips: list[int], last: int):
        """`skips` are the channels of the maps that are added, coarsest first; `last` is the last factor."""
        super().__init__()
        self.score = nn.Conv2d(hidden, classes, 1)
        self.skips = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in skips)
        factors = [*(2 for _ in skips), last]
        self.up = nn.ModuleList(nn.ConvTranspose2d(classes, classes, 2 * f, stride=f, bias=False) for f in factors)


class FCN(nn.Module):
    """Pictures (B, C, H, W), normalised, to logits (B, num_classes, H, W) (section 4, figure 3)."""

    head_name = "head"

    def __init__(self, config: FCNConfig, trunk: Trunk):
        super().__init__()
        self.config = c = config
        layers: Any = trunk.trunk  # type: ignore[attr-defined]
        stages = len(trunk.strides)
        if not 0 <= c.skips < stages:
            raise ValueError(f"skips is 0 to {stages - 1}, got {c.skips}")
        layers[0].padding = (c.padding, c.padding)
        for layer in layers:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True  # as Caffe's pools
        self.trunk = trunk
        self.last = last = trunk.strides[-1 - c.skips]
        # Cell 0 behind the unpadded hidden layer is cell `offset` of the map it was made of, and cell 2 offset - 1 of
        # the map before that, once doubled; so far each skip is cut. Then follows where the picture begins.
        self.offsets = [(c.kernel - 1) // 2]
        for _ in range(c.skips):
            self.offsets.append(2 * self.offsets[-1] - 1)
        self.start = last // 2 - last * self.offsets[-1] + c.padding - 1
        if self.start < 0:
            raise ValueError(f"padding is at least {c.padding - self.start} with these skips, got {c.padding}")
        self.fc6 = nn.Conv2d(trunk.channels[-1], c.hidden, c.kernel)
        self.fc7 = nn.Conv2d(c.hidden, c.hidden, 1)
        self.dropout = nn.Dropout2d(c.dropout)
        skipped = [trunk.channels[-2 - n] for n in range(c.skips)]
        self.head = Scores(c.num_classes, c.hidden, skipped, last)
        # Of pool4 and pool3, as in voc-fcn8s-atonce
        self.scales = [1e-2 ** (n + 1) if c.at_once else 1.0 for n in range(c.skips)]
        initialise_convolutions(self)
        self.reset_scores()

    @torch.no_grad()
    def reset_scores(self) -> None:
        """Scores of zero and bilinear kernels, as the training begins (section 4.3)."""
        for layer in (self.head.score, *self.head.skips):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        for up in self.head.up:
            weight: Any = up.weight
            if not weight.is_meta:
                weight.copy_(bilinear_kernel(len(weight), weight.shape[-1]))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        maps = self.trunk.feature_maps(images)
        x = self.dropout(F.relu(self.fc6(maps[-1])))
        scores = self.head.score(self.dropout(F.relu(self.fc7(x))))
        for n, (up, skip) in enumerate(zip(self.head.up[:-1], self.head.skips, strict=True)):  # the last has none
            scores = up(scores)
            added = _cut(skip(maps[-2 - n] * self.scales[n]), self.offsets[n + 1], scores.shape[2], scores.shape[3])
            scores = _cut(scores, 0, added.shape[2], added.shape[3]) + added  # of small kernels a skip may end before
        return _cut(self.head.up[-1](scores), self.start, height, width)

    @torch.no_grad()
    def take_classifier(self, state: Mapping[str, Tensor]) -> None:
        """The hidden layers of the VGG that the trunk is of, as convolutions (section 3.1), where they are as large."""
        for layer, name in ((self.fc6, "fc1"), (self.fc7, "fc2")):
            weight = state.get(f"{name}.weight")
            if weight is not None and weight.numel() == layer.weight.numel() and len(weight) == len(layer.weight):
                layer.weight.copy_(weight.view_as(layer.weight))
                layer.bias.copy_(state[f"{name}.bias"])  # type: ignore[union-attr]

    def fit_state(self, state: Mapping[str, Tensor], saved: FCNConfig) -> dict[str, Tensor]:
        """Weights for other classes: kernels that enlarge scores begin anew, as they have a place for each pair."""
        return {name: tensor for name, tensor in state.items() if not name.startswith("head.up.")}

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*trunk_groups(self.trunk), ("fc6.",), ("fc7.",), ("head.",)]


def _cut(x: Tensor, start: int, height: int, width: int) -> Tensor:
    return x[:, :, start : start + height, start : start + width]


def narrowed(inputs: int, dropout: float) -> nn.Sequential:
    """What stands before the logits: a 3x3 convolution to a quarter of the channels."""
    return nn.Sequential(
        conv(inputs, inputs // 4, 3), nn.BatchNorm2d(inputs // 4), nn.ReLU(inplace=True), nn.Dropout(dropout)
    )


class AuxiliaryHead(nn.Module):
    """A map (B, inputs, h, w) to logits of its size."""

    def __init__(self, inputs: int, classes: int, dropout: float):
        super().__init__()
        self.body = narrowed(inputs, dropout)
        self.head = nn.Conv2d(inputs // 4, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


class DilatedFCN(nn.Module):
    """Pictures (B, C, H, W), normalised, to logits (B, num_classes, H, W), by torchvision's plan."""

    head_name = "head"

    def __init__(self, config: DilatedFCNConfig, trunk: Trunk):
        super().__init__()
        self.config = c = config
        self.trunk = trunk
        self.body = narrowed(trunk.channels[-1], c.dropout)
        self.head = nn.Conv2d(trunk.channels[-1] // 4, c.num_classes, 1)
        before = trunk.channels[-2:-1] if c.auxiliary else ()
        self.auxiliaries = nn.ModuleList(AuxiliaryHead(channels, c.num_classes, c.dropout) for channels in before)
        self.auxiliary_weight = 0.5 if c.auxiliary else 0.0  # of its loss, as in torchvision's training
        for layers in (self.body, self.auxiliaries):
            initialise_convolutions(layers)

    def forward(self, images: Tensor) -> Tensor:
        return _enlarge(self.head(self.body(self.trunk.feature_maps(images)[-1])), images)

    def forward_with_auxiliaries(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits, and those of the auxiliary head, for training."""
        *_, before, last = self.trunk.feature_maps(images)
        logits = _enlarge(self.head(self.body(last)), images)
        return logits, tuple(_enlarge(head(before), images) for head in self.auxiliaries)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*trunk_groups(self.trunk), ("body.", "head.", "auxiliaries.")]


def _enlarge(logits: Tensor, images: Tensor) -> Tensor:
    """Interpolated to the size of the images."""
    return F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)


def trunk_groups(trunk: Trunk) -> list[tuple[str, ...]]:
    """The trunk's own groups, without those of what only its logits needed."""
    gone = tuple(f"{layer}." for layer in trunk.classifier_layers)
    groups = ([prefix for prefix in group if prefix not in gone] for group in trunk.layer_groups())
    return [tuple(f"trunk.{prefix}" for prefix in group) for group in groups if group]


def build(config: FCNConfig | DilatedFCNConfig) -> FCN | DilatedFCN:
    wanted = {"in_channels": config.in_channels, **dict(config.trunk_settings)}
    if isinstance(config, DilatedFCNConfig):
        return DilatedFCN(config, create_trunk(config.trunk, wanted))
    whole = configuration(config.trunk, **wanted)
    if not isinstance(whole, VGGConfig):
        raise ValueError(f"the trunk is a VGG, whose hidden layers become convolutions, got {config.trunk}")
    trunk: Any = create_trunk(config.trunk, {**wanted, "hidden": 1})  # 100 million weights would be made in vain
    trunk.config = whole
    return FCN(config, trunk)


SMALL_VGG = {"widths": (16, 32, 64), "image_size": 64}
VARIANTS: dict[str, FCNConfig | DilatedFCNConfig] = {
    "fcn32s": FCNConfig(),
    "fcn16s": FCNConfig(skips=1),
    "fcn8s": FCNConfig(skips=2),
    "fcn8s_atonce": FCNConfig(skips=2, at_once=True),
    "fcn_resnet50": DilatedFCNConfig("resnet50"),
    "fcn_resnet101": DilatedFCNConfig("resnet101"),
    # ours: three stages in place of five, and no more padding than the skips need
    "fcn_nano": FCNConfig(
        2, False, "vgg_nano", SMALL_VGG, padding=4, kernel=3, hidden=128, dropout=0.0, image_size=(64, 80),
        num_classes=11,
    ),
}  # fmt: skip
NAMES: dict[str, Callable[[Any], list[Rule | tuple[str, str]]]] = {
    "official": official_names,
    "torchvision": torchvision_names,
}
CAFFE = {"mean": (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255), "std": (1 / 255,) * 3}
LANDMARK = Landmark(
    model=build, variants=VARIANTS, names=NAMES, infer_config=infer_config, preprocess={"official": CAFFE}
)
