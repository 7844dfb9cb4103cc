"""MnasNet: platform-aware neural architecture search for mobile (Tan et al. 2018, arXiv:1807.11626).

Figure 7 of the paper: stages of inverted residual blocks whose kernels, widths, depths and squeeze and excitation were
found by search, with the time on a phone in the reward. `semnasnet` is the network of the figure (A1), `mnasnet` the
one without squeeze and excitation (B1, section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.inverted_residual_net import InvertedResidualNet, Stage, timm_names
from orchard.nn.conv_norm import round_width


@dataclass(frozen=True)
class MnasNetConfig:
    multiplier: float  # of all widths but the last convolution's
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    squeezes: tuple[float, ...]  # hidden units of squeeze and excitation, as a share of a block's input; 0: none
    stem: int = 32
    last: int = 1280
    dropout: float = 0.2
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1  # the share of a new batch in running statistics; 1 less TensorFlow's
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        rows = (self.widths, self.depths, self.strides, self.kernels, self.expansions, self.squeezes)
        if len({len(row) for row in rows}) != 1:
            raise ValueError("widths, depths, strides, kernels, expansions and squeezes have one number a stage each")

    @property
    def stages(self) -> list[Stage]:
        """The rows of the figure at this configuration's widths."""
        widths = [round_width(self.multiplier * width) for width in self.widths]
        rest = (self.depths, self.strides, self.expansions, self.kernels, self.squeezes)
        return [Stage(*row) for row in zip(widths, *rest, strict=True)]


class MnasNet(InvertedResidualNet):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    def __init__(self, config: MnasNetConfig):
        c = config
        super().__init__(
            c,
            stem=round_width(c.multiplier * c.stem),
            last=c.last,
            norm=partial(nn.BatchNorm2d, eps=c.norm_eps, momentum=c.norm_momentum),
            activation=nn.ReLU,
            same_padding=False,
            dropout=c.dropout,
        )
        bound = (3 / c.num_classes) ** 0.5  # variance 1 / fan-out, as torchvision's head starts
        nn.init.uniform_(self.head.weight, -bound, bound)


A1: dict[str, Any] = dict(
    widths=(16, 24, 40, 80, 112, 160, 320),
    depths=(1, 2, 3, 4, 2, 3, 1),
    strides=(1, 2, 2, 2, 1, 2, 1),
    kernels=(3, 3, 5, 3, 3, 5, 3),
    expansions=(1, 6, 3, 6, 6, 6, 6),
    squeezes=(0.0, 0.0, 0.25, 0.0, 0.25, 0.25, 0.0),
)
B1: dict[str, Any] = dict(
    widths=(16, 24, 40, 80, 96, 192, 320),
    depths=(1, 3, 3, 3, 2, 4, 1),
    strides=(1, 2, 2, 2, 1, 2, 1),
    kernels=(3, 3, 5, 5, 3, 5, 3),
    expansions=(1, 3, 3, 6, 6, 6, 6),
    squeezes=(0.0,) * 7,
)
SMALL: dict[str, Any] = dict(
    widths=(8, 16, 16, 32, 32, 88, 144),
    depths=(1, 1, 2, 4, 3, 3, 1),
    strides=(1, 2, 2, 2, 1, 2, 1),
    kernels=(3, 3, 3, 5, 3, 5, 3),
    expansions=(1, 3, 6, 6, 6, 6, 6),
    squeezes=(0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.0),
    stem=8,
    dropout=0.0,
)
NANO: dict[str, Any] = dict(
    widths=(16, 24, 40, 64),
    depths=(1, 2, 2, 1),
    strides=(1, 2, 2, 1),
    kernels=(3, 3, 5, 3),
    expansions=(1, 3, 4, 4),
    squeezes=(0.0, 0.0, 0.25, 0.0),
    stem=16,
    last=128,
    dropout=0.1,
    image_size=32,
    in_channels=1,
    num_classes=10,
)

VARIANTS = {
    "mnasnet_nano": MnasNetConfig(1.0, **NANO),
    "mnasnet_small": MnasNetConfig(1.0, **SMALL),
    **{f"mnasnet_{round(100 * m):03}": MnasNetConfig(m, **B1) for m in (0.5, 0.75, 1.0, 1.3, 1.4)},
    **{f"semnasnet_{round(100 * m):03}": MnasNetConfig(m, **A1) for m in (0.5, 0.75, 1.0, 1.4)},
}


def torchvision_names(config: MnasNetConfig) -> list[tuple[str, str]]:
    """torchvision's layers in one row, ReLUs counted; it has B1 only."""
    first = {"stem.0": 0, "stem.1": 1, "stages.0.0.depthwise.0": 3, "stages.0.0.depthwise.1": 4}
    first |= {"stages.0.0.project.0": 6, "stages.0.0.project.1": 7}
    rows = [(f"{ours}.{{}}", f"layers.{number}.{{}}") for ours, number in first.items()]
    inside = {"expand.0": 0, "expand.1": 1, "depthwise.0": 3, "depthwise.1": 4, "project.0": 6, "project.1": 7}
    stages = len(config.stages)
    for s in range(1, stages):
        rows += [
            (f"stages.{s}.{{}}.{ours}.{{}}", f"layers.{7 + s}.{{}}.layers.{number}.{{}}")
            for ours, number in inside.items()
        ]
    rows += [("last.0.{}", f"layers.{7 + stages}.{{}}"), ("last.1.{}", f"layers.{8 + stages}.{{}}")]
    return [*rows, ("head.{}", "classifier.1.{}")]


def infer_config(config: Any, source: str, find: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """torchvision keeps the paper's slow running statistics, timm does not."""
    return {"norm_momentum": 0.0003} if source == "torchvision" else {}


LANDMARK = Landmark(
    model=MnasNet,
    variants=VARIANTS,
    names={"torchvision": torchvision_names, "timm": timm_names},
    infer_config=infer_config,
)
