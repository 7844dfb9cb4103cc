"""Blocks of several chains of convolutions side by side, as the Inception family has them.

A block is written as its figure is drawn: one list of steps for each branch, and what the branches give is
concatenated along the channels.

>>> wiring.branches(192, [Conv(64, 1)], [Conv(48, 1), Conv(64, 5)], [nn.MaxPool2d(3, 1, 1), Conv(32, 1)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = int | tuple[int, int]  # rows and columns, or one number for both


class Conv(NamedTuple):
    """A convolution, and the norm and ReLU behind it; without `padding` an odd kernel keeps the size at stride 1."""

    outputs: int
    kernel: Pair
    stride: int = 1
    padding: int | None = None


@dataclass(frozen=True)
class Fork:
    """Branches inside a branch."""

    branches: tuple[Sequence[Step], ...]


Step = Conv | Fork | nn.Module  # a module keeps the number of channels, as a pool does


class ConvNorm(nn.Module):
    """Convolution, batch norm unless `eps` is None, ReLU; (B, inputs, H, W) → (B, outputs, ...)."""

    def __init__(self, inputs: int, outputs: int, step: Conv, *, bias: bool, eps: float | None):
        super().__init__()
        self.outputs = outputs
        rows, columns = (step.kernel, step.kernel) if isinstance(step.kernel, int) else step.kernel
        padding = (rows // 2, columns // 2) if step.padding is None else step.padding
        self.conv = nn.Conv2d(inputs, outputs, (rows, columns), step.stride, padding, bias=bias)
        self.bn = nn.Identity() if eps is None else nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Chain(nn.Sequential):
    """Steps one behind the other, and the number of channels they give."""

    def __init__(self, steps: Sequence[nn.Module], outputs: int):
        super().__init__(*steps)
        self.outputs = outputs


class Branches(nn.ModuleList):
    """Chains that read the same map; what they give stands one behind the other along the channels."""

    def __init__(self, chains: Sequence[Chain]):
        super().__init__(chains)
        self.outputs = sum(chain.outputs for chain in chains)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([chain(x) for chain in self], 1)


@dataclass(frozen=True)
class Wiring:
    """What all convolutions of a network have in common.

    bias: of the convolutions; eps: of the batch norms, None for a network without; width: the share of the channels
    that a network smaller than the published one has.
    """

    bias: bool
    eps: float | None
    width: float

    def channels(self, published: int) -> int:
        return max(1, round(published * self.width))

    def conv(self, inputs: int, step: Conv) -> ConvNorm:
        return ConvNorm(inputs, self.channels(step.outputs), step, bias=self.bias, eps=self.eps)

    def chain(self, inputs: int, *steps: Step) -> Chain:
        """`inputs` are channels as they are; what a `Conv` states is the published number."""
        made: list[nn.Module] = []
        for step in steps:
            if isinstance(step, Conv):
                made.append(self.conv(inputs, step))
                inputs = self.channels(step.outputs)
            elif isinstance(step, Fork):
                made.append(fork := self.branches(inputs, *step.branches))
                inputs = fork.outputs
            else:
                made.append(step)
        return Chain(made, inputs)

    def branches(self, inputs: int, *chains: Sequence[Step]) -> Branches:
        return Branches([self.chain(inputs, *steps) for steps in chains])
