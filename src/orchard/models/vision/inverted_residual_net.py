"""What MobileNet V2, MnasNet and EfficientNet share: a stem, stages of inverted residual blocks, a wide end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from orchard.nn.checks import check_images
from orchard.nn.conv_norm import Norm, conv_norm, initialise_by_fan_out
from orchard.nn.inverted_residual import InvertedResidual


@dataclass(frozen=True)
class Stage:
    """A row of a paper's table: `depth` blocks of one width, the first of which has the stride."""

    width: int
    depth: int
    stride: int
    expansion: int
    kernel: int = 3
    squeeze: float = 0.0


class Config(Protocol):
    """What the name tables and the network read of a configuration."""

    @property
    def in_channels(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def stages(self) -> list[Stage]: ...


class InvertedResidualNet(nn.Module):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes).

    Args:
        config: the landmark's, of which stages, channels and classes are read.
        stem: channels of the 3x3 convolution of stride 2 at the beginning.
        last: channels of the 1x1 convolution before the mean.
        norm: makes a norm of that many channels.
        activation: a class that takes `inplace`.
        same_padding: TensorFlow's SAME padding at strides.
        dropout: of the means, before the head.
        drop_path: probability that a sample skips the last block; earlier ones less, linearly.
    """

    head_name = "head"
    classifier_layers = ("last", "head")

    def __init__(
        self,
        config: Config,
        *,
        stem: int,
        last: int,
        norm: Norm,
        activation: type[nn.Module],
        same_padding: bool,
        dropout: float,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.config = config
        stages = config.stages
        self.stem = conv_norm(
            config.in_channels, stem, 3, stride=2, same_padding=same_padding, norm=norm, activation=activation
        )
        self.stages = nn.ModuleList()
        count = sum(stage.depth for stage in stages)
        inputs, index = stem, 0
        for stage in stages:
            blocks = []
            for i in range(stage.depth):
                blocks.append(
                    InvertedResidual(
                        inputs,
                        stage.width,
                        kernel=stage.kernel,
                        stride=stage.stride if i == 0 else 1,
                        expansion=stage.expansion,
                        squeeze=stage.squeeze,
                        same_padding=same_padding,
                        norm=norm,
                        activation=activation,
                        drop_path=drop_path * index / count,
                    )
                )
                inputs, index = stage.width, index + 1
            self.stages.append(nn.Sequential(*blocks))
        self.taps, self.strides = _ends(stages)
        self.channels = tuple(stages[tap].width for tap in self.taps)
        self.last = conv_norm(inputs, last, 1, norm=norm, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(last, config.num_classes)
        initialise_by_fan_out(self)
        nn.init.zeros_(self.head.bias)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each size, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels)
        x = self.stem(images)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.taps:
                maps.append(x)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """The map that the last stage leaves, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        means = self.last(self.features(images)).mean((2, 3))
        logits: Tensor = self.head(self.dropout(means))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"stages.{s}.{i}.",) for s, stage in enumerate(self.config.stages) for i in range(stage.depth)]
        return [("stem.",), *blocks, ("last.",), ("head.",)]


def _ends(stages: Sequence[Stage]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The stages before which and behind which the size changes: their indices and the strides of their maps."""
    taps, strides, stride = [], [], 2
    for index, stage in enumerate(stages):
        stride *= stage.stride
        if index + 1 == len(stages) or stages[index + 1].stride > 1:
            taps.append(index)
            strides.append(stride)
    return tuple(taps), tuple(strides)


def timm_names(config: Config) -> list[tuple[str, str]]:
    """timm's names: a block without a first convolution numbers its norms from the depthwise one on."""
    rows = []
    for s, stage in enumerate(config.stages):
        ours, theirs = f"stages.{s}.{{}}.", f"blocks.{s}.{{}}."
        parts = ["depthwise.0.{}", "depthwise.1.{}", "project.0.{}", "project.1.{}"]
        names = ["conv_dw.{}", "bn1.{}", "conv_pw.{}", "bn2.{}"]
        if stage.expansion != 1:
            parts = ["expand.0.{}", "expand.1.{}", *parts]
            names = ["conv_pw.{}", "bn1.{}", "conv_dw.{}", "bn2.{}", "conv_pwl.{}", "bn3.{}"]
        parts += ["squeeze.fc1.{}", "squeeze.fc2.{}"]
        names += ["se.conv_reduce.{}", "se.conv_expand.{}"]
        rows += [(ours + part, theirs + name) for part, name in zip(parts, names, strict=True)]
    return [
        *rows,
        ("stem.0.{}", "conv_stem.{}"),
        ("stem.1.{}", "bn1.{}"),
        ("last.0.{}", "conv_head.{}"),
        ("last.1.{}", "bn2.{}"),
        ("head.{}", "classifier.{}"),
    ]


def numbered_blocks(config: Config) -> list[tuple[str, Stage]]:
    """Every block by the beginning of its names in ours, for packages that number them through."""
    return [(f"stages.{s}.{i}.", stage) for s, stage in enumerate(config.stages) for i in range(stage.depth)]
