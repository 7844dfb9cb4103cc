"""Trunks: classifiers without what follows their feature maps, for other landmarks to build on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from orchard.cards import card_of
from orchard.errors import OrchardError, UsageError
from orchard.models import Rule, configuration, create_model, landmark_of

Settings = tuple[tuple[str, Any], ...]  # fields of a trunk's configuration, sorted


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


def frozen_settings(settings: Any) -> Settings:
    """Fields of a trunk's configuration, a mapping or pairs, as a configuration holds them: sorted, lists as tuples."""
    table = dict(settings)
    return tuple((key, _frozen(table[key])) for key in sorted(table))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list | tuple) else value


def trunk_names(config: Any, source: str, prefix: str) -> list[Rule | tuple[str, str]]:
    """Of a model whose `trunk` has the fields `config.trunk` and `config.trunk_settings` say: the trunk's own table of
    names in that package, under a prefix. Raises OrchardError where the trunk has none."""
    names = landmark_of(config.trunk).names
    if source not in names:
        raise OrchardError(f"{config.trunk} has no rule for names of {source}, which such files use for the trunk")
    rules: list[Rule | tuple[str, str]] = []
    for row in names[source](configuration(config.trunk, **dict(config.trunk_settings))):
        rule = row if isinstance(row, Rule) else Rule(row[0], (row[1],))
        rules.append(Rule(f"trunk.{rule.ours}", tuple(prefix + name for name in rule.theirs), rule.join, rule.split))
    return rules


def freeze_batch_norms(model: Any, eps: float | None = None) -> None:
    """Put a norm with constant statistics, gain and bias in the place of every batch norm, in place.

    Detectors see too few pictures a step for statistics of their own (DETR, appendix A.4; torchvision's part). `eps` is
    added to the variances; none: what the batch norm adds.
    """
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                added = norm.eps if eps is None else eps
                frozen = FrozenBatchNorm2d(norm.num_features, added).to(norm.running_mean)  # device and dtype
                with torch.no_grad():
                    for buffer in ("weight", "bias", "running_mean", "running_var"):
                        getattr(frozen, buffer).copy_(getattr(norm, buffer))
                setattr(parent, name, frozen)
