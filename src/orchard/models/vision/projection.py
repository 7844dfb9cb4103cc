"""What learns from images without labels: a trunk, and a projection head that is left out afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from orchard.models.vision.trunk import Trunk, create_trunk, frozen_settings


@dataclass(frozen=True)
class ProjectedConfig:
    """What every such landmark is told."""

    trunk: str = "resnet50"  # a classifier's name
    trunk_settings: tuple[tuple[str, Any], ...] | Mapping[str, Any] = ()  # fields of its configuration that differ
    embedding: int = 128  # numbers of an embedding
    temperature: float = 0.1  # what cosines are divided by in the loss
    image_size: int = 224
    in_channels: int = 3
    sizes: ClassVar[tuple[str, ...]] = ("embedding",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))
        for name in self.sizes:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, expected more than 0")


class ProjectedTrunk(nn.Module):
    """Images (B, C, H, W), normalised, to embeddings (B, embedding), not yet of length one."""

    head_name = "head"
    objective: str  # of its paper, by which it is trained unless the settings name another

    def __init__(self, config: ProjectedConfig, trunk: Trunk, head: nn.Module):
        super().__init__()
        self.config = config
        self.trunk: Trunk = trunk
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """The mean over the trunk's last feature map, (B, D): what is kept for other tasks."""
        return self.trunk.feature_maps(images)[-1].mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.head(self.features(images))
        return embeddings

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        gone = tuple(f"{layer}." for layer in self.trunk.classifier_layers)
        groups = ([prefix for prefix in group if prefix not in gone] for group in self.trunk.layer_groups())
        return [*(tuple(f"trunk.{prefix}" for prefix in group) for group in groups if group), ("head.",)]


def trunk_of(config: ProjectedConfig) -> Trunk:
    """The trunk that a configuration names."""
    settings = {"in_channels": config.in_channels, "image_size": config.image_size, **dict(config.trunk_settings)}
    return create_trunk(config.trunk, settings)


def mlp_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers with biases and a ReLU between them: the head of MoCo v2 and of SimCLR's PyTorch port."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
