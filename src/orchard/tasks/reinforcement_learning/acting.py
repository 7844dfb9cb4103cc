"""What an agent is, at play in several environments side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from orchard.data.environments import Environments


@dataclass(frozen=True)
class Choice:
    """What an agent does in each of N environments.

    `actions` are (N,) int64 or (N, A) float32; `worth` is what it thinks of it, by name, each (N,).
    """

    actions: np.ndarray
    worth: Mapping[str, np.ndarray]


class Agent(Protocol):
    """A network that plays in several environments."""

    def choose(self, envs: Environments) -> Choice: ...
    def forget(self, ended: np.ndarray) -> None:
        """New episodes begin where `ended` (N,)."""


def view_of(network: nn.Module) -> str:
    """How the frames of a game are made for this network."""
    config: Any = network.config
    return str(getattr(config, "view", "grey"))
