"""Spectral normalisation as `torch.nn.utils.spectral_norm` has it, for landmarks whose authors took that.

Miyato et al. 2018 (arXiv:1802.05957, algorithm 1). Two singular vectors are kept; a call in training moves both by one
power iteration, and a call in evaluation takes them as they are. `nn/spectral_norm.py`, BigGAN's, keeps one vector and
iterates in evaluation too. torch's function leaves the normalised weight in the module, where no copy can be made of it
while it has a gradient, and its newer parametrisation moves the vectors in the other order: so this is a part.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12  # the least norm that a vector is divided by


class TorchSpectralWeight(nn.Module):
    """What both layers have in common. A weight of any shape is the matrix (outputs, rest)."""

    weight: Tensor  # as it learns; what is multiplied by is `normalised()`
    u: Tensor  # (outputs,), the left singular vector of the largest singular value, as far as it is found
    v: Tensor  # (rest,), the right one

    def start_iteration(self) -> None:
        """Begin with a random left vector and the right one that follows from it."""
        with torch.no_grad():
            matrix = self.weight.flatten(1)
            self.register_buffer("u", F.normalize(torch.randn(len(matrix)), dim=0, eps=EPS))
            self.register_buffer("v", F.normalize(matrix.T @ self.u, dim=0, eps=EPS))

    def normalised(self) -> Tensor:
        """The weight over its largest singular value, through which gradients flow; the vectors are constants."""
        device = self.weight.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):  # three digits of bf16 are too few for an iteration
                return self.normalised()
        matrix, u, v = self.weight.flatten(1), self.u, self.v
        if self.training:
            with torch.no_grad():
                v = F.normalize(matrix.T @ u, dim=0, eps=EPS)
                u = F.normalize(matrix @ v, dim=0, eps=EPS)
                self.u.copy_(u)
                self.v.copy_(v)
        return self.weight / torch.dot(u, matrix @ v)


class TorchSpectralConv2d(TorchSpectralWeight, nn.Conv2d):
    """A convolution, its weight normalised."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, padding: int,
        padding_mode: Literal["zeros", "reflect"], bias: bool,
    ):  # fmt: skip
        super().__init__(inputs, outputs, kernel, stride, padding, padding_mode=padding_mode, bias=bias)
        self.start_iteration()

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.normalised(), self.bias)


class TorchSpectralLinear(TorchSpectralWeight, nn.Linear):
    """A linear layer, its weight normalised."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool):
        super().__init__(inputs, outputs, bias=bias)
        self.start_iteration()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.normalised(), self.bias)
