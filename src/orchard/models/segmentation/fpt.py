"""FPT for semantic segmentation: the feature pyramid transformer (Zhang et al. 2020, arXiv:2007.09451, section 3.5).

The pyramid here is an "unscathed" one: no level is smaller than another, they differ in how far they see. Convolutions
with kernels of 1, 7, 15 and 31 make them of a dilated trunk's last map. The transformer's grounding is local, and the
head that of Panoptic FPN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from orchard.models import Landmark
from orchard.models.segmentation.fpn import PyramidSegmenter, check_head
from orchard.models.vision.trunk import Settings, create_trunk, frozen_settings
from orchard.nn.feature_pyramid_transformer import FeaturePyramidTransformer
from orchard.nn.global_convolution import UnscathedPyramid


@dataclass(frozen=True)
class FPTConfig:
    trunk: str = "resnet101"  # a classifier's name
    trunk_settings: Settings | Mapping[str, Any] = (("dilated_stages", 2),)  # that differ from that name's
    kernels: tuple[int, ...] = (1, 7, 15, 31)  # one for each level, smallest first
    width: int = 256  # channels of the pyramid
    self_parts: int = 2  # softmaxes that are mixed within a level
    grounding: str = "local"  # the paper's, or "distance" of whole maps; released: dot, embedded, stem, ...
    grounding_parts: int = 4
    side: int = 5  # cells of the squares that a local grounding sees
    head_width: int = 128
    groups: int = 32  # of the head's norms
    image_size: int | tuple[int, int] = (512, 1024)
    in_channels: int = 3
    num_classes: int = 19

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))
        check_head(self)


def build(config: FPTConfig) -> PyramidSegmenter:
    c = config
    trunk = create_trunk(c.trunk, {"in_channels": c.in_channels, **dict(c.trunk_settings)})
    strides = [trunk.strides[-1]] * len(c.kernels)
    transformer = FeaturePyramidTransformer(
        c.width, strides, None, self_parts=c.self_parts, grounding=c.grounding, grounding_parts=c.grounding_parts,
        side=c.side,
    )  # fmt: skip
    pyramid = nn.Sequential(UnscathedPyramid(trunk.channels[-1], c.width, c.kernels), transformer)
    return PyramidSegmenter(c, trunk, [len(trunk.strides) - 1], pyramid, strides)


SMALL_DILATED = {
    "stem": "7x7", "stem_width": 16, "depths": (1, 1, 1), "widths": (8, 16, 32), "bottleneck": True,
    "dilated_stages": 1,
}  # fmt: skip
VARIANTS = {
    "fpt_resnet50": FPTConfig("resnet50"),
    "fpt_resnet101": FPTConfig("resnet101"),
    # ours: a shallow trunk whose last map is an eighth of the image, and kernels that suit so small a one
    "fpt_nano": FPTConfig(
        "resnet_nano", SMALL_DILATED, (1, 3, 7, 15), width=32, side=3, head_width=32, groups=8, image_size=(64, 80),
        num_classes=11,
    ),
}  # fmt: skip
LANDMARK = Landmark(model=build, variants=VARIANTS)
