"""OpenNMT-py's translators: ids have an axis of features, and targets are stored whole."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

PAD = 1


def _as_ours(stored: Stored) -> Stored:
    source, target = stored.tensors["in.src"][..., 0], stored.tensors["in.tgt"][..., 0]
    changed = {"in.source": source, "in.target": target[:, :-1], "in.source_mask": source != PAD}
    return replace(stored, tensors={**stored.tensors, **changed})


ADAPTER = Adapter(stored=_as_ours)
