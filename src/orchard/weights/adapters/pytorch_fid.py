"""The Inception network of pytorch-fid: its stored images are bytes, which it brings to [-1, 1] itself."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def _normalised(stored: Stored) -> Stored:
    images = 2 * (stored.tensors["in.images_u8"].float() / 255) - 1
    return replace(stored, tensors={**stored.tensors, "in.images": images})


ADAPTER = Adapter(stored=_normalised)
