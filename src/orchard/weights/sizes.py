"""Counts the variants into cards/sizes.json: `python -m orchard.weights.sizes [NAME...]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from orchard.cards import SIZES, card_of, sizes, variant_names
from orchard.models import create_model, landmark_of


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters, each counted once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def size_of(name: str, model: nn.Module) -> dict[str, int]:
    """Parameters of a model of this variant, and multiply-adds of one example; the model is on the meta device.

    Counted are matrix products, convolutions and attention, as the field counts them.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**landmark_of(name).example(model.config, 1, None))
    return {"parameters": count_parameters(model), "macs": counter.get_total_flops() // 2}


def _count(name: str) -> dict[str, int]:
    with torch.device("meta"):
        return size_of(name, create_model(name).eval())


def main(names: Sequence[str]) -> None:
    """Count these landmarks and variants again, or all where none is named; what has gone from the cards goes."""
    again = {variant for name in names for variant in ([name] if name in variant_names() else card_of(name).variants)}
    known = sizes() if again else {}
    counted = {name: known[name] if name in known.keys() - again else _count(name) for name in sorted(variant_names())}
    lines = [f'"{name}": {json.dumps(size)}' for name, size in counted.items()]
    SIZES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
