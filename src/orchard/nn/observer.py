"""What reads an agent's observations: convolutions over a stack of frames, then fully connected layers.

Vectors of numbers go straight to the fully connected layers. No convolution pads (Mnih et al. 2015, methods).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ObserverConfig:
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
        """Height and width of what the last convolution gives."""
        size = self.observation[-2:]
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            size = tuple((side - kernel) // stride + 1 for side in size)
        return size


class Observer(nn.Module):
    """Observations (B, *observation) → features (B, F), each layer followed by `activation`.

    Observations are float (pixels in [0, 1]), or uint8 as buffers hold frames; those are divided by 255. Weights and
    biases start uniform within ±1/√fan-in, as PyTorch's layers do. The first `layers` of the configuration's hidden
    layers are built, all of them by default.
    """

    def __init__(self, config: ObserverConfig, activation: Callable[[Tensor], Tensor], *, layers: int | None = None):
        super().__init__()
        self.shape, self.activation = config.observation, activation
        inputs = config.observation[0]
        self.convolutions = nn.ModuleList()
        for width, kernel, stride in zip(config.channels, config.kernels, config.strides, strict=True):
            self.convolutions.append(nn.Conv2d(inputs, width, kernel, stride))
            inputs = width
        pixels = torch.Size(config.map_size if config.channels else config.observation).numel()
        self.features = inputs * pixels if config.channels else pixels
        self.hidden = nn.ModuleList()
        for width in config.hidden[:layers]:
            self.hidden.append(nn.Linear(self.features, width))
            self.features = width

    def read(self, observations: Tensor) -> Tensor:
        """Raises ValueError for another shape, or integers other than uint8."""
        x = self._as_float(observations)
        for convolution in self.convolutions:
            x = self.activation(convolution(x))
        x = x.flatten(1)
        for layer in self.hidden:
            x = self.activation(layer(x))
        return x

    def forward(self, observations: Tensor) -> Tensor:
        return self.read(observations)

    def _as_float(self, observations: Tensor) -> Tensor:
        if tuple(observations.shape[1:]) != self.shape or observations.ndim != 1 + len(self.shape):
            sides = ", ".join(map(str, self.shape))
            raise ValueError(f"expected observations of shape (B, {sides}), got {tuple(observations.shape)}")
        if observations.dtype == torch.uint8:
            return observations.to(next(self.parameters()).dtype) / 255
        if not observations.is_floating_point():
            raise ValueError(f"expected observations in float or uint8, got {observations.dtype}")
        return observations

    def observer_groups(self, prefix: str = "") -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input up, for layer-wise learning rates."""
        layers = [f"{prefix}convolutions.{n}." for n in range(len(self.convolutions))]
        layers += [f"{prefix}hidden.{n}." for n in range(len(self.hidden))]
        return [(name,) for name in layers]
