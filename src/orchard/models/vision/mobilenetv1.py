"""MobileNet: efficient convolutional neural networks for mobile vision applications (Howard et al. 2017,
arXiv:1704.04861).

Table 1 of the paper: one ordinary convolution, then nothing but pairs of a depthwise 3x3 and a 1x1 convolution, each
with its norm and its ReLU. A multiplier makes all widths smaller (section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.config_json import ConfigJson, only
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv_norm import conv_norm, initialise_by_fan_out, round_width


@dataclass(frozen=True)
class MobileNetV1Config:
    multiplier: float = 1.0  # of all widths
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)  # table 1; every stage after the first halves the picture
    depths: tuple[int, ...] = (1, 2, 2, 6, 2)  # pairs of convolutions in each stage
    stem: int = 32
    dropout: float = 0.001
    same_padding: bool = False  # TensorFlow's SAME padding at strides, for Google's own weights
    norm_eps: float = 1e-5  # Google's weights: 1e-3
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths and widths name the same stages, got {len(self.depths)} and {len(self.widths)}")


class DepthwiseSeparable(nn.Module):
    """3x3 of each channel by itself, then 1x1 across channels, (B, inputs, H, W) → (B, outputs, H / stride, ...)."""

    def __init__(self, config: MobileNetV1Config, inputs: int, outputs: int, stride: int):
        super().__init__()
        part = partial(conv_norm, norm=partial(nn.BatchNorm2d, eps=config.norm_eps), activation=nn.ReLU6)
        same = config.same_padding
        self.depthwise = part(inputs, inputs, 3, stride=stride, groups=inputs, same_padding=same)
        self.pointwise = part(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class MobileNetV1(PooledClassifier):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    def __init__(self, config: MobileNetV1Config):
        super().__init__()
        self.config = c = config
        inputs = round_width(c.multiplier * c.stem)
        self.stem = conv_norm(
            c.in_channels, inputs, 3, stride=2, same_padding=c.same_padding,
            norm=partial(nn.BatchNorm2d, eps=c.norm_eps), activation=nn.ReLU6,
        )  # fmt: skip
        self.strides = tuple(2 << stage for stage in range(len(c.widths)))
        self.channels = tuple(round_width(c.multiplier * width) for width in c.widths)
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(c.depths, self.channels, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(DepthwiseSeparable(c, inputs, width, stride=2 if stage > 0 and i == 0 else 1))
                inputs = width
            self.stages.append(nn.Sequential(*blocks))
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(inputs, c.num_classes)
        initialise_by_fan_out(self)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels)
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"stages.{s}.{i}.",) for s, depth in enumerate(self.config.depths) for i in range(depth)]
        return [("stem.",), *blocks, ("head.",)]


VARIANTS = {
    "mobilenetv1_nano": MobileNetV1Config(
        widths=(32, 64, 128), depths=(1, 2, 2), stem=16, image_size=32, in_channels=1, num_classes=10
    ),
    **{f"mobilenetv1_{round(100 * m):03}": MobileNetV1Config(m) for m in (0.25, 0.5, 0.75, 1.0)},
}


def timm_names(config: MobileNetV1Config) -> list[tuple[str, str]]:
    return [
        ("stem.0.{}", "conv_stem.{}"),
        ("stem.1.{}", "bn1.{}"),
        ("stages.{}.{}.depthwise.0.{}", "blocks.{}.{}.conv_dw.{}"),
        ("stages.{}.{}.depthwise.1.{}", "blocks.{}.{}.bn1.{}"),
        ("stages.{}.{}.pointwise.0.{}", "blocks.{}.{}.conv_pw.{}"),
        ("stages.{}.{}.pointwise.1.{}", "blocks.{}.{}.bn2.{}"),
        ("head.{}", "classifier.{}"),
    ]


def hf_names(config: MobileNetV1Config) -> list[tuple[str, str]]:
    """transformers' names, which Google's own weights come under: all convolutions behind the first in one list."""
    rows, number = [("stem", "conv_stem")], 0
    for s, depth in enumerate(config.depths):
        for i in range(depth):
            rows.append((f"stages.{s}.{i}.depthwise", f"layer.{number}"))
            rows.append((f"stages.{s}.{i}.pointwise", f"layer.{number + 1}"))
            number += 2
    kinds = ((".0.{}", ".convolution.{}"), (".1.{}", ".normalization.{}"))
    named = [(ours + a, f"mobilenet_v1.{theirs}{b}") for ours, theirs in rows for a, b in kinds]
    return [*named, ("head.{}", "classifier.{}")]


def infer_config(config: Any, source: str, find: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Google's weights want TensorFlow's padding and epsilon, which the tensors cannot show."""
    return {"same_padding": True, "norm_eps": 1e-3} if source == "hf" else {}


CONFIG_JSON: ConfigJson = {
    "depth_multiplier": "multiplier",
    "tf_padding": "same_padding",
    "layer_norm_eps": "norm_eps",
    "image_size": "image_size",
    "num_channels": "in_channels",
    "hidden_act": only("relu6"),
    "min_depth": only(8),
}
HALVES = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # timm trained its own weights in [-1, 1] too

LANDMARK = Landmark(
    model=MobileNetV1,
    variants=VARIANTS,
    names={"timm": timm_names, "hf": hf_names},
    infer_config=infer_config,
    config_json=CONFIG_JSON,
    preprocess={"hf": HALVES, "timm": HALVES},
)
