"""EfficientNet: rethinking model scaling for convolutional neural networks (Tan and Le 2019, arXiv:1905.11946).

B0 is table 1 of the paper, found by search; B1 to B7 are the same table with all widths, depths and the picture grown
together (section 3.3). `tf_efficientnet_b0` to `b7` compute as Google's code does, `efficientnet_b0` to `b7` as the
PyTorch packages: the weights have the same shapes, but padding and epsilons are others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.inverted_residual_net import InvertedResidualNet, Stage, timm_names
from orchard.nn.conv_norm import round_width


@dataclass(frozen=True)
class EfficientNetConfig:
    width: float = 1.0  # what the widths of B0 are multiplied by
    depth: float = 1.0  # what the numbers of blocks are multiplied by, rounded up
    dropout: float = 0.2
    widths: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)  # table 1: the stages of B0
    depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    expansion: int = 6  # of all stages but the first, which is as wide inside as its input
    squeeze: float = 0.25  # hidden units of squeeze and excitation, as a share of a block's input
    stem: int = 32
    last: int = 1280
    drop_path: float = 0.2  # of the block behind the last; earlier ones less, linearly
    same_padding: bool = False  # TensorFlow's SAME padding at strides
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1  # the share of a new batch in running statistics; 1 less TensorFlow's
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.depths) == len(self.strides) == len(self.kernels):
            raise ValueError("widths, depths, strides and kernels name the same stages, one number each")

    @property
    def stages(self) -> list[Stage]:
        """The rows of table 1 at this configuration's widths and depths."""
        rows = zip(self.widths, self.depths, self.strides, self.kernels, strict=True)
        return [
            Stage(
                width=round_width(self.width * width),
                depth=math.ceil(self.depth * depth),
                stride=stride,
                expansion=self.expansion if index else 1,
                kernel=kernel,
                squeeze=self.squeeze,
            )
            for index, (width, depth, stride, kernel) in enumerate(rows)
        ]


class EfficientNet(InvertedResidualNet):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    def __init__(self, config: EfficientNetConfig):
        c = config
        super().__init__(
            c,
            stem=round_width(c.width * c.stem),
            last=round_width(c.width * c.last),
            norm=partial(nn.BatchNorm2d, eps=c.norm_eps, momentum=c.norm_momentum),
            activation=nn.SiLU,
            same_padding=c.same_padding,
            dropout=c.dropout,
            drop_path=c.drop_path,
        )
        bound = c.num_classes**-0.5
        nn.init.uniform_(self.head.weight, -bound, bound)


# Width, depth, side of the picture and dropout of each size, as the authors' code has them.
SIZES = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
}
GOOGLE: dict[str, Any] = dict(same_padding=True, norm_eps=1e-3, norm_momentum=0.01)
PYTORCH: dict[str, Any] = dict(norm_eps=1e-5, norm_momentum=0.1)
TORCHVISION_LARGE: dict[str, Any] = dict(norm_eps=1e-3, norm_momentum=0.01)  # b5 to b7 keep Google's epsilon


def published(size: str, **details: Any) -> EfficientNetConfig:
    """B0 to B7, at their own picture size and dropout."""
    width, depth, image_size, dropout = SIZES[size]
    return EfficientNetConfig(width, depth, dropout, image_size=image_size, **details)


VARIANTS = {
    "efficientnet_nano": EfficientNetConfig(
        dropout=0.1,
        widths=(16, 24, 40, 64),
        depths=(1, 2, 2, 1),
        strides=(1, 2, 2, 1),
        kernels=(3, 3, 5, 3),
        expansion=4,
        stem=16,
        last=128,
        drop_path=0.1,
        image_size=32,
        in_channels=1,
        num_classes=10,
    ),
    **{f"efficientnet_{size}": published(size, **(TORCHVISION_LARGE if size > "b4" else {})) for size in SIZES},
    **{f"tf_efficientnet_{size}": published(size, **GOOGLE) for size in SIZES},
}


def torchvision_names(config: EfficientNetConfig) -> list[tuple[str, str]]:
    """torchvision numbers stem, stages and last convolution through, and the parts of a block."""
    rows = [("stem.{}", "features.0.{}"), ("last.{}", f"features.{len(config.stages) + 1}.{{}}")]
    for s, stage in enumerate(config.stages):
        parts = ["expand", "depthwise", "squeeze", "project"][int(stage.expansion == 1) :]
        rows += [
            (f"stages.{s}.{{}}.{part}.{{}}", f"features.{s + 1}.{{}}.block.{n}.{{}}") for n, part in enumerate(parts)
        ]
    return [*rows, ("head.{}", "classifier.1.{}")]


def infer_config(config: Any, source: str, find: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """What the tensors cannot show: no weights of torchvision want Google's padding, and only its large ones Google's
    epsilon; timm's want both or neither.
    """
    if source == "torchvision":
        return {"same_padding": False, **(TORCHVISION_LARGE if config.width > 1.5 else PYTORCH)}
    return GOOGLE if config.same_padding else PYTORCH


LANDMARK = Landmark(
    model=EfficientNet,
    variants=VARIANTS,
    names={"torchvision": torchvision_names, "timm": timm_names},
    infer_config=infer_config,
    preprocess={"": {"interpolation": "bicubic"}},
)
