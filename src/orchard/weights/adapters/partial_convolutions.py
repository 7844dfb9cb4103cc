"""Networks of partial convolutions whose masks may have as many channels as the images, all alike."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    """The same with one channel of each mask."""
    masks = {key: tensor[:, :1] for key, tensor in case.tensors.items() if key in ("in.mask", "out.mask_out")}
    return replace(case, tensors={**case.tensors, **masks})


ADAPTER = Adapter(stored=stored)
