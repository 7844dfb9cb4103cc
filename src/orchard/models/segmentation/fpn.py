"""FPN for semantic segmentation (Lin et al. 2016, arXiv:1612.03144; Kirillov et al. 2019, arXiv:1901.02446).

A trunk, a pyramid on its maps, and the semantic head of Panoptic FPN: every level is brought to the size of the finest
by convolutions, all are added up, and a 1x1 convolution says the classes. Which pyramid it is, is another landmark's
choice: the feature pyramid transformer stands here too (`fpt.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.segmentation.fcn import trunk_groups
from orchard.models.vision.trunk import Settings, Trunk, create_trunk, frozen_settings
from orchard.nn.checks import check_images
from orchard.nn.feature_pyramid import FeaturePyramid
from orchard.nn.semantic_head import SemanticHead


@dataclass(frozen=True)
class FPNConfig:
    trunk: str = "resnet50"  # a classifier's name
    trunk_settings: Settings | Mapping[str, Any] = ()  # fields of its configuration that differ from that name's
    levels: int = 4  # at most so many of the trunk's resolutions, the coarsest ones
    width: int = 256  # channels of the pyramid
    head_width: int = 128
    groups: int = 32  # of the head's norms
    image_size: int | tuple[int, int] = (512, 1024)
    in_channels: int = 3
    num_classes: int = 19

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))
        check_head(self)


def check_head(config: Any) -> None:
    if config.head_width % config.groups:
        raise ValueError(f"groups divide head_width, got {config.groups} and {config.head_width}")


class PyramidSegmenter(nn.Module):
    """Images (B, C, H, W), normalised, to logits (B, num_classes, H, W).

    What is segmented is the image with zeros at the bottom and the right, up to multiples of the largest stride.

    Args:
        config: of the landmark.
        trunk: a classifier without its head.
        used: which of the trunk's maps the pyramid is given.
        pyramid: makes levels of them, (B, config.width, H / stride, W / stride) each, and perhaps more behind them.
        strides: of the levels.
    """

    head_name = "head"

    def __init__(self, config: Any, trunk: Trunk, used: Sequence[int], pyramid: nn.Module, strides: Sequence[int]):
        super().__init__()
        self.config = c = config
        self.trunk: Trunk = trunk
        self.used = tuple(used)
        self.strides = tuple(strides)
        self.pyramid = pyramid
        self.body = SemanticHead(c.width, strides, c.head_width, c.groups)
        self.head = nn.Conv2d(c.head_width, c.num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels)
        height, width = images.shape[2:]
        stride = max(self.trunk.strides)
        padded = F.pad(images, (0, -width % stride, 0, -height % stride))
        maps = self.trunk.feature_maps(padded)
        levels = self.pyramid([maps[n] for n in self.used])[: len(self.strides)]
        logits = self.head(self.body(levels))
        whole = F.interpolate(logits, size=padded.shape[2:], mode="bilinear", align_corners=False)
        return whole[:, :, :height, :width]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*trunk_groups(self.trunk), ("pyramid.",), ("body.",), ("head.",)]


def build(config: FPNConfig) -> PyramidSegmenter:
    trunk = create_trunk(config.trunk, {"in_channels": config.in_channels, **dict(config.trunk_settings)})
    last = {stride: n for n, stride in enumerate(trunk.strides)}  # the last map of each resolution
    used = [last[stride] for stride in sorted(last)][-config.levels :]
    pyramid = FeaturePyramid([trunk.channels[n] for n in used], config.width, None)
    return PyramidSegmenter(config, trunk, used, pyramid, [trunk.strides[n] for n in used])


SMALL_RESNET = {"stem": "7x7", "stem_width": 16, "depths": (1, 1, 1), "widths": (16, 32, 64)}
VARIANTS = {
    "fpn_resnet50": FPNConfig("resnet50"),
    "fpn_resnet101": FPNConfig("resnet101"),
    # ours: a shallow trunk with maps of a quarter, an eighth and a sixteenth of the image
    "fpn_nano": FPNConfig(
        "resnet_nano", SMALL_RESNET, width=32, head_width=32, groups=8, image_size=(64, 80), num_classes=11
    ),
}
LANDMARK = Landmark(model=build, variants=VARIANTS)
