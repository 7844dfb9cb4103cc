"""MoCo: momentum contrast for unsupervised visual representation learning (He et al. 2019, arXiv:1911.05722).

A query encoder learns to find the embedding that a second, slowly moving encoder (the key encoder) gave another view of
the same image among a long queue of embeddings of earlier images. So the number of negatives is free of the batch.
Version 2 (arXiv:2003.04297) takes SimCLR's head of two layers, its blur and a temperature of 0.2.

This is the query encoder, which is what is kept; the key encoder and the queue belong to training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.vision.projection import ProjectedConfig, ProjectedTrunk, mlp_head, trunk_of
from orchard.models.vision.trunk import Trunk, trunk_names


@dataclass(frozen=True)
class MoCoConfig(ProjectedConfig):
    mlp: bool = False  # a head of two layers (version 2), in place of one
    temperature: float = 0.07


class MoCo(ProjectedTrunk):
    objective = "momentum"

    def __init__(self, config: MoCoConfig, trunk: Trunk):
        inputs = trunk.channels[-1]
        one = nn.Sequential(nn.Linear(inputs, config.embedding))
        super().__init__(config, trunk, mlp_head(inputs, inputs, config.embedding) if config.mlp else one)


def build(config: MoCoConfig) -> MoCo:
    return MoCo(config, trunk_of(config))


def official_names(config: MoCoConfig) -> list[Rule | tuple[str, str]]:
    """facebookresearch/moco, whose files hold a module wrapped for several devices."""
    return encoder_names(config, "module.encoder_q.")


def encoder_names(config: MoCoConfig, prefix: str) -> list[Rule | tuple[str, str]]:
    """An encoder under a prefix: a torchvision network whose `fc` is the head."""
    head = ("head.{}", f"{prefix}fc.{{}}") if config.mlp else ("head.0.{}", f"{prefix}fc.{{}}")
    return [*trunk_names(config, "torchvision", prefix), head]


def infer_config(config: MoCoConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The length of an embedding."""
    bias = lookup("head.2.bias" if config.mlp else "head.0.bias")
    return {} if bias is None else {"embedding": len(bias)}


VARIANTS = {
    "moco_v1_resnet50": MoCoConfig(),
    "moco_v2_resnet50": MoCoConfig(mlp=True, temperature=0.2),
    # ours: version 2 on the small trunk of resnet_nano
    "moco_nano": MoCoConfig("resnet_nano", embedding=64, mlp=True, temperature=0.2, image_size=32, in_channels=1),
}
LANDMARK = Landmark(
    model=build,
    variants=VARIANTS,
    names={"official": official_names},
    infer_config=infer_config,
    not_weights={"official": ("module.encoder_k.*", "module.queue", "module.queue_ptr")},
)
