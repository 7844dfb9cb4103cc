"""CleanRL's DQN for Atari: stored with its target network beside it, and frames of a quarter of the size."""

from __future__ import annotations

from dataclasses import replace

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def _network_alone(stored: Stored) -> Stored:
    state = {name.removeprefix("q."): tensor for name, tensor in stored.state.items() if name.startswith("q.")}
    frames = stored.tensors["in.observations_21"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    return replace(stored, state=state, tensors={**stored.tensors, "in.observations": frames})


ADAPTER = Adapter(stored=_network_alone)
