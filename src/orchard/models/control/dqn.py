"""DQN: the network that values actions (Mnih et al. 2013, arXiv:1312.5602; Mnih et al. 2015, doi:10.1038/nature14236).

Q(s, a) is the discounted return that action a in state s leads to. One network gives Q of all actions in a single
pass, so that to find the best one costs no more than any. Convolutions read a stack of frames, because one frame
does not show which way the ball flies; vectors of numbers go straight to the fully connected layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.duelling import DuellingHead
from orchard.nn.observer import Observer, ObserverConfig


@dataclass(frozen=True)
class DQNConfig(ObserverConfig):
    duelling: bool = False  # the last hidden layer and the head are two streams, of a value and of advantages


class QNetwork(Observer):
    """Observations (B, *observation) → Q values (B, actions). What observations are, `Observer` says."""

    def __init__(self, config: DQNConfig):
        super().__init__(config, F.relu, layers=len(config.hidden) - 1 if config.duelling else None)
        self.config = config
        self.head: nn.Module
        if config.duelling:
            self.head = DuellingHead(self.features, config.hidden[-1], config.actions)
        else:
            self.head = nn.Linear(self.features, config.actions)

    def forward(self, observations: Tensor) -> Tensor:
        """Raises ValueError for another shape, or integers other than uint8."""
        q_values: Tensor = self.head(self.read(observations))
        return q_values

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*self.observer_groups(), ("head.",)]


def cleanrl_names(config: DQNConfig) -> list[tuple[str, str]]:
    """vwxyzjn/cleanrl, dqn.py and dqn_atari.py: one Sequential that numbers activations and the flattening too."""
    convolutions, hidden = len(config.channels), len(config.hidden)
    first = 2 * convolutions + (1 if convolutions else 0)
    names = [(f"convolutions.{n}.{{}}", f"network.{2 * n}.{{}}") for n in range(convolutions)]
    names += [(f"hidden.{n}.{{}}", f"network.{first + 2 * n}.{{}}") for n in range(hidden)]
    return [*names, ("head.{}", f"network.{first + 2 * hidden}.{{}}")]


def sb3_names(config: DQNConfig) -> list[tuple[str, str]]:
    """Stable-Baselines3, policy.pth: the first layer after the convolutions belongs to the features extractor."""
    convolutions, hidden = len(config.channels), len(config.hidden)
    extracted = 1 if convolutions else 0
    names = [(f"convolutions.{n}.{{}}", f"q_net.features_extractor.cnn.{2 * n}.{{}}") for n in range(convolutions)]
    names += [("hidden.0.{}", "q_net.features_extractor.linear.0.{}")] * extracted
    names += [(f"hidden.{n}.{{}}", f"q_net.q_net.{2 * (n - extracted)}.{{}}") for n in range(extracted, hidden)]
    return [*names, ("head.{}", f"q_net.q_net.{2 * (hidden - extracted)}.{{}}")]


def infer_config(config: DQNConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """What the shapes in a checkpoint tell: the number of actions, the hidden widths, the length of a vector."""
    layers = [lookup(f"hidden.{n}.weight") for n in range(len(config.hidden))]
    head = lookup("head.weight")
    if head is None or any(layer is None for layer in layers):
        return {}
    found: dict[str, Any] = {"actions": len(head), "hidden": tuple(len(layer) for layer in layers if layer is not None)}
    if not config.channels:
        first = layers[0] if layers and layers[0] is not None else head
        found["observation"] = (first.shape[1],)
    return found


def example(config: DQNConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Observations as float in [0, 1]."""
    return {"observations": torch.rand(count, *config.observation, generator=generator)}


FRAMES = (4, 84, 84)  # the last four, in grey
VARIANTS = {
    "dqn_nano": DQNConfig((4,), 2, (120, 84)),
    "dqn_2013": DQNConfig(FRAMES, 6, (256,), channels=(16, 32), kernels=(8, 4), strides=(4, 2)),
    "dqn": DQNConfig(FRAMES, 6, (512,), channels=(32, 64, 64), kernels=(8, 4, 3), strides=(4, 2, 1)),
    "dqn_duelling_nano": DQNConfig((4,), 2, (120, 84), duelling=True),
    "dqn_duelling": DQNConfig(FRAMES, 6, (512,), (32, 64, 64), (8, 4, 3), (4, 2, 1), duelling=True),
}
LANDMARK = Landmark(
    model=QNetwork,
    variants=VARIANTS,
    names={"cleanrl": cleanrl_names, "sb3": sb3_names},
    infer_config=infer_config,
    not_weights={"sb3": ("q_net_target.*",)},
    example=example,
)
