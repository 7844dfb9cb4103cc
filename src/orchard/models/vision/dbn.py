"""Deep belief nets (Hinton, Osindero and Teh 2006, "A fast learning algorithm for deep belief nets"; Hinton and
Salakhutdinov 2006, doi:10.1126/science.1127647): a stack of restricted Boltzmann machines.

Each machine learns to model the hidden units of the one below, without labels. Then the stack is a network of sigmoid
units, which learns the classes with a linear head on top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.nn.checks import check_images
from orchard.nn.rbm import RBM


@dataclass(frozen=True)
class DBNConfig:
    hidden_sizes: tuple[int, ...]  # units of each layer, from the pixels up
    image_size: int = 28
    in_channels: int = 1
    num_classes: int = 10

    def __post_init__(self) -> None:
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes are one or more sizes of at least 1, got {self.hidden_sizes}")


class DBN(nn.Module):
    """Images (B, C, S, S) in [0, 1] to logits (B, num_classes)."""

    head_name = "head"
    value_range = (0.0, 1.0)

    def __init__(self, config: DBNConfig):
        super().__init__()
        self.config = config
        self.shape = (config.in_channels, config.image_size, config.image_size)
        sizes = (config.in_channels * config.image_size**2, *config.hidden_sizes)
        layers = [RBM(visible, hidden) for visible, hidden in pairwise(sizes)]
        self.rbms: Any = nn.ModuleList(layers)
        self.head = nn.Linear(sizes[-1], config.num_classes)
        for rbm in layers:  # Glorot and Bengio 2010, four times as wide for sigmoids
            nn.init.xavier_uniform_(rbm.weight, gain=4)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*((prefix,) for prefix in self.pretraining_layers), ("head.",)]

    def up(self, images: Tensor, layers: int) -> Tensor:
        """Probabilities of the hidden units after so many layers, (B, units); the pixels for 0."""
        check_images(images, self.config.in_channels, self.shape[1:])
        x = images.flatten(1)
        for rbm in self.rbms[:layers]:
            x = rbm(x)
        return x

    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer as a map of one pixel, (B, units, 1, 1)."""
        return self.up(images, len(self.rbms))[:, :, None, None]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits

    def reconstruct(self, images: Tensor) -> Tensor:
        """The images as the stack sees them: up to the last layer and down again, (B, C, S, S) in [0, 1]."""
        x = self.up(images, len(self.rbms))
        for rbm in reversed(self.rbms):
            x = rbm.reconstruct(x)
        return x.view(-1, *self.shape)

    def filters(self) -> Tensor:
        """The weights of each unit of the first layer, (units, C, S, S)."""
        weight: Tensor = self.rbms[0].weight
        return weight.view(-1, *self.shape)

    @property
    def pretraining_layers(self) -> tuple[str, ...]:
        """Name prefixes of the parameters of each layer that is pretrained, in the order in which they are."""
        return tuple(f"rbms.{n}." for n in range(len(self.rbms)))

    def pretraining_loss(self, layer: int, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The CD-k loss of a layer on images, and the cross entropy of its reconstruction in nats per unit; scalars.

        As in the authors' own programs, what a layer learns from are the probabilities of the layer below, and the
        chain samples hidden units but not visible ones.
        """
        rbm: RBM = self.rbms[layer]
        with torch.no_grad():
            data = self.up(images, layer)
            chain = rbm.gibbs(data, k, sample_visible=False)
            error = F.binary_cross_entropy_with_logits(rbm.visible_logits(rbm(data)), data)
        return rbm.contrastive_loss(data, chain), error


VARIANTS = {
    "dbn": DBNConfig((500, 500, 2000)),
    "dbn_nano": DBNConfig((128, 128, 256), image_size=8),
}


def numpy_names(config: DBNConfig) -> list[Rule | tuple[str, str]]:
    """Arrays as yusugomori/DeepLearning's DBN calls them; matrices are (inputs, units)."""

    def transposed(ours: str, theirs: str) -> Rule:
        return Rule(ours, (theirs,), lambda matrix: matrix.T, lambda matrix: (matrix.T,))

    return [
        transposed("rbms.{}.weight", "W{}"),
        ("rbms.{}.hidden_bias", "hbias{}"),
        ("rbms.{}.visible_bias", "vbias{}"),
        transposed("head.weight", "log_W"),
        ("head.bias", "log_b"),
    ]


NAMES: Mapping[str, Callable[[DBNConfig], list[Rule | tuple[str, str]]]] = {"yusugomori": numpy_names}

LANDMARK = Landmark(
    model=DBN, variants=VARIANTS, names=NAMES, preprocess={"": {"mean": (0.0,), "std": (1.0,), "crop": 1.0}}
)
