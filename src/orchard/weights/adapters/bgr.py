"""Networks from Caffe, whose stored pictures are BGR: ours take RGB."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

PICTURES = ("in.images", "in.x")  # what cases call them


def _as_rgb(stored: Stored) -> Stored:
    turned = {name: stored.tensors[name].flip(1) for name in PICTURES if name in stored.tensors}
    return replace(stored, tensors={**stored.tensors, **turned})


ADAPTER = Adapter(stored=_as_rgb)
