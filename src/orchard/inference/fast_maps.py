"""What a detector computes of all places alike, made fast: it alone has fixed shapes, and is most of the work."""

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


def with_fast_maps(model: nn.Module, *, patience: float = CHOOSE_SECONDS, say: Callable[[str], None]) -> nn.Module:
    """The same model, in evaluation mode in float32 on a CPU, with `FastMaps` in the place of its `dense_maps`.

    Weights are shared; `model` itself stays as it is.
    """
    fast = copy.copy(model)
    fast.__dict__["dense_maps"] = FastMaps(model, patience, say)
    return fast


class FastMaps:
    """A model's `dense_maps`, which looks for the fastest way to run on images of one shape once that pays.

    A way is prepared for one shape, and which images will come is not known before. So it is looked for when what it
    would have saved on the images of that shape so far has reached `patience`, the seconds that looking costs; one that
    an earlier process has kept is opened when it would have saved as much as opening costs.
    """

    def __init__(self, model: Any, patience: float, say: Callable[[str], None]):
        self.model, self.patience, self.say = model, patience, say
        self.spent: defaultdict[Shape, float] = defaultdict(float)  # seconds, by the shape of the images
        self.looked: set[Shape] = set()  # for which the cache was asked
        self.ways: dict[Shape, tuple[FastModel, list[Shape]]] = {}  # with the shapes (C, H, W) of the maps

    @property
    def how(self) -> str:
        """Which ways were taken, in words."""
        return "; ".join(dict.fromkeys(fast.how for fast, _ in self.ways.values())) or "as it is"

    def __call__(self, images: Tensor) -> list[Tensor]:
        """As the model's own."""
        shape = tuple(images.shape)
        if shape not in self.ways and self._pays(images):
            maps: list[Tensor] = self.model.dense_maps(images)
            self.say(f"looking for the fastest way to run images of {shape[-1]} x {shape[-2]}")
            fast = make_fast(_Flat(self.model).eval(), images, precision="fp32")
            self.say(fast.how)
            self.ways[shape] = fast, [tuple(one.shape[1:]) for one in maps]
        way = self.ways.get(shape)
        if way is None or way[0].batch is None:  # not prepared, or the fastest as it is
            began = time.perf_counter()
            maps = self.model.dense_maps(images)
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
        return choice_path(_Flat(self.model).eval(), shape, "fp32").exists()


class _Flat(nn.Module):
    """A model's dense maps as one tensor: (B, all maps one after the other)."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([one.flatten(1) for one in self.model.dense_maps(images)], 1)
