"""What learns: a network that acts, and what is kept beside it."""

from __future__ import annotations

from typing import Any

from torch import nn

from orchard.training.learner import Learner


class AgentLearner(Learner):
    """A network that acts. A family that keeps more beside it has a class of its own."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def layer_groups(self) -> list[tuple[str, ...]]:
        network: Any = self.network
        return [tuple(f"network.{name}" for name in group) for group in network.layer_groups()]
