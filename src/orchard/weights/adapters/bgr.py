"""Networks from Caffe, whose stored pictures are BGR: ours take RGB."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def _as_rgb(stored: Stored) -> Stored:
    return replace(stored, tensors={**stored.tensors, "in.images": stored.tensors["in.images"].flip(1)})


ADAPTER = Adapter(stored=_as_rgb)
