"""Trunks: classifiers without what follows their feature maps, for detectors and segmenters to build on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from orchard.cards import card_of
from orchard.errors import UsageError
from orchard.models import create_model


class Trunk(Protocol):
    """What a classifier with feature maps offers beside its logits."""

    strides: tuple[int, ...]  # pixels a side that one cell of each map stands for, finest first
    channels: tuple[int, ...]  # of each map
    classifier_layers: tuple[str, ...]  # attributes of what only the logits need

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Pictures (B, C, H, W), normalised, to a map per stage, (B, channels, about H / stride, about W / stride)."""
        ...

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of all parameters from the input to the head, as every landmark has them."""
        ...


def create_trunk(name: str, overrides: Mapping[str, Any]) -> Trunk:
    """The classifier of this name with fields of its configuration replaced, and without its head.

    Raises UsageError for an unknown name or field and for a model without feature maps.
    """
    nothing = UsageError(f"{name} has no feature maps, so nothing can be built on it; a ResNet, VGG or ViT has")
    if card_of(name).task != "image-classification":
        raise nothing
    model: Any = create_model(name, **overrides)
    if not hasattr(model, "feature_maps"):
        raise nothing
    for layer in model.classifier_layers:
        delattr(model, layer)
    trunk: Trunk = model
    return trunk


def freeze_batch_norms(model: Any) -> None:
    """Put a norm with constant statistics, gain and bias in the place of every batch norm, in place.

    Detectors see too few pictures a step for statistics of their own (DETR, appendix A.4; torchvision's part).
    """
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps).to(norm.running_mean)  # device and dtype
                with torch.no_grad():
                    for buffer in ("weight", "bias", "running_mean", "running_var"):
                        getattr(frozen, buffer).copy_(getattr(norm, buffer))
                setattr(parent, name, frozen)
