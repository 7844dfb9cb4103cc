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


@dataclass(frozen=True)
class DQNConfig:
    observation: tuple[int, ...]  # (frames, H, W), or (N,) for a vector of numbers
    actions: int
    hidden: tuple[int, ...]  # widths of the fully connected layers
    channels: tuple[int, ...] = ()  # of each convolution; none for vectors
    kernels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError("channels, kernels and strides name the same convolutions, expected as many of each")
        if self.channels and len(self.observation) != 3:
            raise ValueError(f"convolutions expect observations of shape (frames, H, W), got {self.observation}")
        if min(self.map_size) < 1:
            raise ValueError(f"frames of {self.observation[1:]} pixels are too small for these convolutions")
        if self.actions < 1:
            raise ValueError(f"actions is 1 or more, got {self.actions}")

    @property
    def map_size(self) -> tuple[int, ...]:
        """Height and width of what the last convolution gives: no convolution pads."""
        size = self.observation[-2:]
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            size = tuple((side - kernel) // stride + 1 for side in size)
        return size


class QNetwork(nn.Module):
    """Observations (B, *observation) → Q values (B, actions).

    Observations are float (pixels in [0, 1]), or uint8 as a replay buffer holds frames; those are divided by 255.
    Weights and biases start uniform within ±1/√fan-in, as PyTorch's layers and those of the official code do.
    """

    def __init__(self, config: DQNConfig):
        super().__init__()
        self.config = c = config
        inputs = c.observation[0]
        self.convolutions = nn.ModuleList()
        for width, kernel, stride in zip(c.channels, c.kernels, c.strides, strict=True):
            self.convolutions.append(nn.Conv2d(inputs, width, kernel, stride))
            inputs = width
        features = inputs * torch.Size(c.map_size).numel() if c.channels else torch.Size(c.observation).numel()
        self.hidden = nn.ModuleList()
        for width in c.hidden:
            self.hidden.append(nn.Linear(features, width))
            features = width
        self.head = nn.Linear(features, c.actions)

    def forward(self, observations: Tensor) -> Tensor:
        """Raises ValueError for another shape, or integers other than uint8."""
        x = self._as_float(observations)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        q_values: Tensor = self.head(x)
        return q_values

    def _as_float(self, observations: Tensor) -> Tensor:
        wanted = self.config.observation
        if tuple(observations.shape[1:]) != wanted or observations.ndim != 1 + len(wanted):
            sides = ", ".join(map(str, wanted))
            raise ValueError(f"expected observations of shape (B, {sides}), got {tuple(observations.shape)}")
        if observations.dtype == torch.uint8:
            return observations.to(self.head.weight.dtype) / 255
        if not observations.is_floating_point():
            raise ValueError(f"expected observations in float or uint8, got {observations.dtype}")
        return observations

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        layers = [f"convolutions.{n}." for n in range(len(self.convolutions))]
        layers += [f"hidden.{n}." for n in range(len(self.hidden))]
        return [(name,) for name in (*layers, "head.")]


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
}
LANDMARK = Landmark(
    model=QNetwork,
    variants=VARIANTS,
    names={"cleanrl": cleanrl_names, "sb3": sb3_names},
    infer_config=infer_config,
    not_weights={"sb3": ("q_net_target.*",)},
    example=example,
)
