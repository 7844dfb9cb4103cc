"""MobileNet V2: inverted residuals and linear bottlenecks (Sandler et al. 2018, arXiv:1801.04381).

Table 2 of the paper: a 3x3 convolution, seven stages of inverted residual blocks, a 1x1 convolution to 1280 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.config_json import ConfigJson, only
from orchard.models.vision.inverted_residual_net import InvertedResidualNet, Stage, numbered_blocks, timm_names
from orchard.nn.conv_norm import round_width


@dataclass(frozen=True)
class MobileNetV2Config:
    multiplier: float = 1.0  # of all widths (section 4); that of the last convolution does not fall below `last`
    widths: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)  # table 2: c, n and s of the stages
    depths: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansion: int = 6  # t, of all stages but the first, which is as wide inside as its input
    stem: int = 32
    last: int = 1280
    dropout: float = 0.2
    same_padding: bool = False  # TensorFlow's SAME padding at strides, for Google's own weights
    norm_eps: float = 1e-5  # Google's weights: 1e-3
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.depths) == len(self.strides):
            raise ValueError("widths, depths and strides name the same stages, one number each")

    @property
    def stages(self) -> list[Stage]:
        """The rows of table 2 at this configuration's widths."""
        rows = zip(self.widths, self.depths, self.strides, strict=True)
        return [
            Stage(round_width(self.multiplier * width), depth, stride, expansion=self.expansion if index else 1)
            for index, (width, depth, stride) in enumerate(rows)
        ]


class MobileNetV2(InvertedResidualNet):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    def __init__(self, config: MobileNetV2Config):
        c = config
        super().__init__(
            c,
            stem=round_width(c.multiplier * c.stem),
            last=round_width(max(1.0, c.multiplier) * c.last),
            norm=partial(nn.BatchNorm2d, eps=c.norm_eps),
            activation=nn.ReLU6,
            same_padding=c.same_padding,
            dropout=c.dropout,
        )
        nn.init.normal_(self.head.weight, std=0.01)


MULTIPLIERS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)  # of the published weights

VARIANTS = {
    "mobilenetv2_nano": MobileNetV2Config(
        widths=(16, 24, 40, 64),
        depths=(1, 2, 2, 1),
        strides=(1, 2, 2, 1),
        expansion=4,
        stem=16,
        last=128,
        dropout=0.1,
        image_size=32,
        in_channels=1,
        num_classes=10,
    ),
    **{f"mobilenetv2_{round(100 * m):03}": MobileNetV2Config(m) for m in MULTIPLIERS},
}


def torchvision_names(config: MobileNetV2Config) -> list[tuple[str, str]]:
    """torchvision numbers stem, blocks and last convolution through, and the layers of a block."""
    rows = [("stem.{}", "features.0.{}"), ("head.{}", "classifier.1.{}")]
    blocks = numbered_blocks(config)
    for number, (ours, stage) in enumerate(blocks, 1):
        theirs, n = f"features.{number}.conv.", int(stage.expansion != 1)
        rows += [
            (f"{ours}expand.{{}}", f"{theirs}0.{{}}"),
            (f"{ours}depthwise.{{}}", f"{theirs}{n}.{{}}"),
            (f"{ours}project.0.{{}}", f"{theirs}{n + 1}.{{}}"),
            (f"{ours}project.1.{{}}", f"{theirs}{n + 2}.{{}}"),
        ]
    return [*rows, ("last.{}", f"features.{len(blocks) + 1}.{{}}")]


def hf_names(config: MobileNetV2Config) -> list[tuple[str, str]]:
    """transformers' names, which Google's own weights come under; the first block is part of the stem."""
    rows = []
    for number, (ours, _) in enumerate(numbered_blocks(config)):
        theirs = f"layer.{number - 1}" if number else "conv_stem"
        parts = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
        rows += [(ours + part, f"{theirs}.{name}") for part, name in parts.items()]
    rows += [("stem", "conv_stem.first_conv"), ("last", "conv_1x1")]
    kinds = ((".0.{}", ".convolution.{}"), (".1.{}", ".normalization.{}"))
    named = [(ours + a, f"mobilenet_v2.{theirs}{b}") for ours, theirs in rows for a, b in kinds]
    return [*named, ("head.{}", "classifier.{}")]


def infer_config(config: Any, source: str, find: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Google's weights want TensorFlow's padding and epsilon, which the tensors cannot show."""
    return {"same_padding": True, "norm_eps": 1e-3} if source == "hf" else {}


CONFIG_JSON: ConfigJson = {
    "depth_multiplier": "multiplier",
    "expand_ratio": "expansion",
    "tf_padding": "same_padding",
    "layer_norm_eps": "norm_eps",
    "image_size": "image_size",
    "num_channels": "in_channels",
    "hidden_act": only("relu6"),
    "depth_divisible_by": only(8),
    "min_depth": only(8),
    "output_stride": only(32),
    "first_layer_is_expansion": only(True),
    "finegrained_output": only(True),
}

LANDMARK = Landmark(
    model=MobileNetV2,
    variants=VARIANTS,
    names={"torchvision": torchvision_names, "timm": timm_names, "hf": hf_names},
    infer_config=infer_config,
    config_json=CONFIG_JSON,
    preprocess={"hf": {"mean": (0.5,) * 3, "std": (0.5,) * 3}},
)
