"""What most convolutional classifiers end with: the mean over their last feature map, dropout, a linear head."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class PooledClassifier(nn.Module, ABC):
    """A landmark of it makes its layers and `head`, and `dropout` where it has some before the head."""

    head_name = "head"
    classifier_layers: tuple[str, ...] = ("head",)
    head: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.dropout: nn.Module = nn.Identity()

    @abstractmethod
    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, about H / stride, about W / stride)."""

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        logits: Tensor = self.head(self.dropout(self.features(images).mean((2, 3))))
        return logits
