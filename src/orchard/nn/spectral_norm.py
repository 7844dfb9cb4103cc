"""Spectral normalisation: a weight divided by its largest singular value, so that a layer stretches nothing.

Miyato et al. 2018 (arXiv:1802.05957, section 2.1 and algorithm 1), as BigGAN's authors have it: the singular value
comes from one power iteration in every call, in evaluation too, and only training keeps the vector that it arrives at.
torch's own parametrisation leaves the iteration out in evaluation, begins with fifteen and keeps two vectors, and so
gives other numbers.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralWeight(nn.Module):
    """What the layers below have in common: `weight`, its singular vector and its largest singular value.

    A weight of any shape is the matrix (outputs, rest).
    """

    weight: Tensor
    u: Tensor  # (1, outputs), the left singular vector of the largest singular value, as far as it is found
    sigma: Tensor  # (1,), the singular value of the latest call in training; kept to be looked at
    folded = False  # has the weight been divided for good?

    def start_iteration(self, eps: float) -> None:
        """Begin with a random vector. `eps` is the least norm that a vector is divided by."""
        self.eps = eps
        self.register_buffer("u", torch.randn(1, len(self.weight)))
        self.register_buffer("sigma", torch.ones(1))

    def normalised(self) -> Tensor:
        """The weight over its singular value, through which gradients flow; the vectors are constants."""
        if self.folded:
            return self.weight
        device = self.weight.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):  # three digits of bf16 are too few for an iteration
                return self.normalised()
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u @ matrix, eps=self.eps)
            u = F.normalize(v @ matrix.T, eps=self.eps)
        sigma = (v @ matrix.T @ u.T).squeeze()
        if self.training:
            with torch.no_grad():
                self.u.copy_(u)
                self.sigma.fill_(sigma)
        return self.weight / sigma


class SpectralConv2d(SpectralWeight, nn.Conv2d):
    """A convolution of stride 1 that keeps the size (odd kernels), its weight normalised."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool, eps: float):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.start_iteration(eps)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.normalised(), self.bias, padding=self.padding)


class SpectralLinear(SpectralWeight, nn.Linear):
    """A linear layer, its weight normalised."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, eps: float):
        super().__init__(inputs, outputs, bias=bias)
        self.start_iteration(eps)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.normalised(), self.bias)


class SpectralEmbedding(SpectralWeight, nn.Embedding):
    """A table of vectors, normalised as the matrix that it is."""

    def __init__(self, count: int, width: int, *, eps: float):
        super().__init__(count, width)
        self.start_iteration(eps)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.normalised())


@torch.no_grad()
def fold_spectral_norms(model: nn.Module) -> nn.Module:
    """The same function in evaluation without iterations, for a model that no longer learns: a copy whose weights are
    divided for good, or the model itself where it has no such layer."""
    if not any(isinstance(module, SpectralWeight) for module in model.modules()):
        return model
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, SpectralWeight):
            module.weight.copy_(module.normalised())
            module.folded = True
    return model
