"""The names of panoptic DETR's tensors in the official files and in transformers': DETR's own under a prefix, and the
head's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from orchard.models import Rule
from orchard.models.detection import detr_names

if TYPE_CHECKING:
    from orchard.models.detection.detr_panoptic import DETRPanopticConfig

Table = list[Rule | tuple[str, str]]


def official_names(config: DETRPanopticConfig) -> Table:
    """facebookresearch/detr: `DETRsegm`."""
    return [*_detector(detr_names.official_names(config)), *_attention("linear"), *_head()]


def hf_names(config: DETRPanopticConfig) -> Table:
    """transformers 5: `DetrForSegmentation`, over a trunk of timm's."""
    block, stage = "mask_head.blocks.{}.{}.{{}}", "mask_head.fpn_stages.{}.{}.{{}}"
    layers = {"0": "conv", "1": "norm"}
    return [
        *_detector(detr_names.hf_names(config)),
        *_attention("proj"),
        *((block.format(n, ours), f"mask_head.conv{n + 1}.{layers[ours]}.{{}}") for n in (0, 1) for ours in layers),
        *((block.format(n + 2, ours), stage.format(n, f"refine.{layers[ours]}")) for n in range(3) for ours in layers),
        *((f"mask_head.adapters.{n}.{{}}", stage.format(n, "fpn_adapter")) for n in range(3)),
        ("mask_head.out.{}", "mask_head.output_conv.{}"),
    ]


def hf_hub_names(config: DETRPanopticConfig) -> Table:
    """The files on the Hub (facebook/detr-resnet-50-panoptic and its sizes), which older versions of transformers
    wrote."""
    return [*_detector(detr_names.hf_hub_names(config)), *_attention("linear"), *_head()]


def _detector(rules: Table) -> Table:
    """DETR's own names, below `detr` there."""
    found: Table = []
    for row in rules:
        rule = row if isinstance(row, Rule) else Rule(row[0], (row[1],))
        theirs = tuple(f"detr.{name}" for name in rule.theirs)
        found.append(Rule(f"detector.{rule.ours}", theirs, rule.join, rule.split))
    return found


def _attention(word: str) -> Table:
    pairs = (("query", "q"), ("key", "k"))
    return [(f"mask_attention.{ours}.{{}}", f"bbox_attention.{theirs}_{word}.{{}}") for ours, theirs in pairs]


def _head() -> Table:
    """The official names of the mask head's layers, which are numbered from 1."""
    return [
        *((f"mask_head.blocks.{n}.0.{{}}", f"mask_head.lay{n + 1}.{{}}") for n in range(5)),
        *((f"mask_head.blocks.{n}.1.{{}}", f"mask_head.gn{n + 1}.{{}}") for n in range(5)),
        *((f"mask_head.adapters.{n}.{{}}", f"mask_head.adapter{n + 1}.{{}}") for n in range(3)),
        ("mask_head.out.{}", "mask_head.out_lay.{}"),
    ]


def infer_config(config: DETRPanopticConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The number of classes and of queries, as DETR's own checkpoints say them."""
    return detr_names.infer_config(config, source, lambda name: lookup(f"detector.{name}"))


NAMES: dict[str, Callable[[Any], Table]] = {"official": official_names, "hf": hf_names, "hf_hub": hf_hub_names}
