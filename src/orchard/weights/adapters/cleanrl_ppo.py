"""CleanRL's PPO for Atari: frames of a quarter of the size, and what the policy was before, as noise on what it is."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def _as_flat_batch(stored: Stored) -> Stored:
    tensors = dict(stored.tensors)
    tensors["in.observations"] = tensors["in.obs_21"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    tensors["in.log_probabilities"] = tensors["out.logprob"] + tensors["in.logprob_noise"]
    tensors["in.old_values"] = tensors["in.values"].flatten()
    tensors["in.flat_advantages"] = tensors["out.advantages"].flatten()
    tensors["in.flat_returns"] = tensors["out.returns"].flatten()
    clipping = (tensors["out.grad_norm"] + 1e-6) / 0.5  # gradients are stored as they were after it
    for name in [name for name in tensors if name.startswith("out.grad.")]:
        tensors[name] = tensors[name] * clipping.clamp(min=1)
    tensors["out.values"] = tensors["out.value"].squeeze(-1)
    return replace(stored, tensors=tensors)


ADAPTER = Adapter(stored=_as_flat_batch)
