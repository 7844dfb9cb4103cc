"""alpha-zero-general: values are a column (B, 1), ours are (B,)."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def _values_in_a_row(stored: Stored) -> Stored:
    return replace(stored, tensors={**stored.tensors, "out.v": stored.tensors["out.v"].squeeze(1)})


ADAPTER = Adapter(stored=_values_in_a_row)
