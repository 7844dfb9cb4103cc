"""Encoders of SimCLR's PyTorch port and of MoCo: torchvision's ResNet, whose `fc` is the projection head.

Both official programs put such a network together from torchvision; here it stands under the names of their files.
"""

from __future__ import annotations

import importlib

from torch import Tensor, nn

from orchard.weights.adapters import Adapter


class Named(nn.Module):
    """A network as a module of another, under a dotted name."""

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.name = name
        inner: nn.Module = self
        *above, last = name.split(".")
        for part in above:
            inner.add_module(part, nn.Module())
            inner = inner.get_submodule(part)
        inner.add_module(last, network)

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.get_submodule(self.name)(images)
        return embeddings


def build(network: str, name: str, embedding: int, mlp: bool = True) -> nn.Module:
    """`network` is a constructor of torchvision's, `name` what its tensors begin with."""
    encoder = getattr(importlib.import_module("torchvision.models"), network)(num_classes=embedding)
    if mlp:
        width = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
    return Named(name, encoder)


ADAPTER = Adapter(build=build)
