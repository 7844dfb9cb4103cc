"""The names of FCN's tensors: the authors' (Caffe's, which wkentaro/pytorch-fcn kept) and torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from orchard.models import Rule, configuration
from orchard.models.vision.trunk import trunk_names

if TYPE_CHECKING:
    from orchard.models.segmentation.fcn import DilatedFCNConfig, FCNConfig

Table = list[Rule | tuple[str, str]]


def official_names(config: FCNConfig | DilatedFCNConfig) -> Table:
    """Layers are named by what they are: conv3_2, score_pool4, upscore2. The stored pictures are BGR, ours are RGB."""
    if not hasattr(config, "skips"):
        return []
    vgg = configuration(config.trunk, **dict(config.trunk_settings))
    if vgg.batch_norm or len(vgg.depths) != 5:
        return []  # they have no such network
    rows: Table = [Rule("trunk.trunk.0.weight", ("conv1_1.weight",), _reverse, lambda kernel: (_reverse(kernel),))]
    place = 0
    for stage, depth in enumerate(vgg.depths, 1):
        for number in range(1, depth + 1):
            rows.append((f"trunk.trunk.{place}.{{}}", f"conv{stage}_{number}.{{}}"))
            place += 2
        place += 1  # the pool
    rows += [("fc6.{}", "fc6.{}"), ("fc7.{}", "fc7.{}"), ("head.score.{}", "score_fr.{}")]
    pools = [4 - n for n in range(config.skips)]
    rows += [(f"head.skips.{n}.{{}}", f"score_pool{pool}.{{}}") for n, pool in enumerate(pools)]
    return [*rows, *((f"head.up.{n}.weight", f"{name}.weight") for n, name in enumerate(_upscores(pools)))]


def _reverse(kernel: Tensor) -> Tensor:
    return kernel.flip(1)


def _upscores(pools: list[int]) -> list[str]:
    """The first doubles the coarsest scores, the next those of a pool with theirs, the last enlarges to pixels."""
    if not pools:
        return ["upscore"]
    doubled = ["upscore2", *(f"upscore_pool{pool}" for pool in pools[:-1])]
    return [*doubled, f"upscore{2 ** pools[-1]}"]


def torchvision_names(config: FCNConfig | DilatedFCNConfig) -> Table:
    """A trunk called backbone and two heads."""
    if hasattr(config, "skips"):
        return []  # torchvision has no such network
    rows = trunk_names(config, "torchvision", "backbone.")
    for ours, theirs in (("", "classifier"), ("auxiliaries.0.", "aux_classifier")):
        rows += [(f"{ours}body.{{}}", f"{theirs}.{{}}"), (f"{ours}head.{{}}", f"{theirs}.4.{{}}")]
    return rows


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The number of classes of the authors' networks, and whether torchvision's has its auxiliary head."""
    if hasattr(config, "skips"):
        scores = lookup("head.score.bias")
        return {} if scores is None else {"num_classes": len(scores)}
    return {"auxiliary": lookup("auxiliaries.0.head.weight") is not None}
