"""A trunk inside of a larger model made fast: only that part has fixed shapes, and it does nearly all of the work."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from orchard.inference.fast import CHOOSE_SECONDS, OPEN_SECONDS, SAVED, FastModel, choice_path, make_fast

Shape = tuple[int, ...]


def with_fast_trunk(model: nn.Module, *, patience: float = CHOOSE_SECONDS, say: Callable[[str], None]) -> nn.Module:
    """The same model, in evaluation mode in float32 on a CPU, with a `FastTrunk` in the place of its `trunk`.

    Weights are shared; `model` itself stays as it is.
    """
    fast = copy.copy(model)
    fast._modules = {**model._modules, "trunk": FastTrunk(model.trunk, patience, say)}
    return fast


class FastTrunk(nn.Module):
    """A trunk that looks for the fastest way to run on images of one shape once that pays.

    A way is prepared for one shape, and which images will come is not known before. So it is looked for when what it
    would have saved on the images of that shape so far has reached `patience`, the seconds that looking costs; one that
    an earlier process has kept is opened when it would have saved as much as opening costs.
    """

    def __init__(self, trunk: Any, patience: float, say: Callable[[str], None]):
        super().__init__()
        self.trunk, self.patience, self.say = trunk, patience, say
        self.spent: defaultdict[Shape, float] = defaultdict(float)  # seconds, by the shape of the images
        self.looked: set[Shape] = set()  # for which the cache was asked
        self.ways: dict[Shape, tuple[FastModel, list[Shape]]] = {}  # with the shapes (C, H, W) of the maps

    @property
    def how(self) -> str:
        """Which ways were taken, in words."""
        return "; ".join(dict.fromkeys(fast.how for fast, _ in self.ways.values())) or "as it is"

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """As the trunk's own."""
        shape = tuple(images.shape)
        if shape not in self.ways and self._pays(images):
            maps: list[Tensor] = self.trunk.feature_maps(images)
            self.say(f"looking for the fastest way to run images of {shape[-1]} x {shape[-2]}")
            fast = make_fast(_Flat(self.trunk).eval(), images, precision="fp32")
            self.say(fast.how)
            self.ways[shape] = fast, [tuple(one.shape[1:]) for one in maps]
        way = self.ways.get(shape)
        if way is None or way[0].batch is None:  # not prepared, or the fastest as it is
            began = time.perf_counter()
            maps = self.trunk.feature_maps(images)
            self.spent[shape] += time.perf_counter() - began
            return maps
        fast, shapes = way
        parts = torch.split(fast(images), [prod(one) for one in shapes], 1)
        return [part.view(-1, *one) for part, one in zip(parts, shapes, strict=True)]

    def _pays(self, images: Tensor) -> bool:
        shape = tuple(images.shape)
        saved = self.spent[shape] * SAVED["fp32"]
        if saved >= self.patience:
            return True
        if saved < OPEN_SECONDS or shape in self.looked:
            return False
        self.looked.add(shape)
        return choice_path(_Flat(self.trunk).eval(), shape, "fp32").exists()


class _Flat(nn.Module):
    """A trunk whose answer is one tensor: (B, all maps one after the other)."""

    def __init__(self, trunk: Any):
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([one.flatten(1) for one in self.trunk.feature_maps(images)], 1)
