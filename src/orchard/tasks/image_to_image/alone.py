"""Learning from pictures alone: what is given is made of each picture, which is itself what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.data.counter_rng import uniforms
from orchard.data.two_sides.contracts import TwoSides
from orchard.data.two_sides.loader import OTHER, SidesBatch, SidesLoader, evaluation_pictures
from orchard.report.run_page import Curve, Tile
from orchard.tasks.image_to_image.measuring import CHUNK, Looks
from orchard.tasks.image_to_image.objective import Family
from orchard.tasks.image_to_image.settings import Settings
from orchard.tasks.image_to_image.translating import network_of, translated
from orchard.tasks.images import in_value_range
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner

FIXED = 20180420  # the seed of what is made for evaluation, the same for every model and every run

# Pixels (S, S, 3) uint8 and the picture's random numbers → what is given, (S, S, C) uint8.
Made = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Told:
    """What a report says in words of this family: of its tiles, its curves, the picture's figure and the whole."""

    tiles: Sequence[Tile]
    curves: Sequence[Curve]
    figure: str
    lead: str


class AloneFamily(Family, Protocol):
    """What a family of this kind has beside what every family has. The first of `METRICS` is a picture's figure."""

    COLOURED: bool  # do grey pictures teach nothing?

    def make_given(self, model: nn.Module, settings: Settings | None) -> Made:
        """What is given, in training; for evaluation without settings, so that it is always the same."""

    def figures(self, given: Tensor, found: Tensor, truth: Tensor) -> Sequence[float]:
        """`METRICS` of one picture: of what is given, what the model made and the truth, (C, S, S) uint8 each."""

    def summary(self, rows: Tensor) -> dict[str, float]:
        """The metrics of a split by those of its pictures, (N, len(METRICS)) float64."""

    def prepare(self, learner: GenerationLearner, split: TwoSides, looks: Looks) -> None:
        """Look at the training pictures before the first step."""

    def tell(self, metrics: Mapping[str, float]) -> Told: ...


def alone(family: Family) -> AloneFamily | None:
    """The family as one of this kind, if it is."""
    return cast(AloneFamily, family) if hasattr(family, "make_given") else None


@dataclass(frozen=True)
class MadeLooks(Looks):
    """Pictures as they come to a model that is given what `made` makes of them."""

    made: Made

    def pictures(self, split: TwoSides, side: str, indices: np.ndarray) -> Tensor:
        pictures = evaluation_pictures(split.b, indices, self.b)
        if side == "B":
            return pictures
        numbers = uniforms(FIXED, 0, indices)[:, OTHER:]
        rows = zip(pictures.permute(0, 2, 3, 1).numpy(), numbers, strict=True)
        return torch.from_numpy(np.stack([self.made(*row).transpose(2, 0, 1) for row in rows]))


class MadeLoader(SidesLoader):
    """Training batches whose A is made of B by `made`, of random numbers that follow from seed, epoch and picture."""

    def __init__(self, split: TwoSides, preprocess: tuple[Preprocess, Preprocess], made: Made, **more: Any):
        super().__init__(split, preprocess, **more)
        self.made = made

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> SidesBatch:
        mine = indices[part]
        numbers = uniforms(self.seed, epoch, mine)
        wanted = [
            self._part(self.split.b, int(n), row, self.preprocess[1]) for n, row in zip(mine, numbers, strict=True)
        ]
        given = [self.made(pixels, row[OTHER:]) for pixels, row in zip(wanted, numbers, strict=True)]
        a, b = (
            preprocess.normalise(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)).contiguous()
            for pixels, preprocess in zip((given, wanted), self.preprocess, strict=True)
        )
        return SidesBatch(a, b, torch.from_numpy(mine))


def made_looks(family: AloneFamily, model: nn.Module, enlarge: float) -> MadeLooks:
    """How pictures come to a model in evaluation: the middle, their shorter side `enlarge` times the model's."""
    network = network_of(model)
    size = network.config.image_size
    a, b = (
        in_value_range(
            Preprocess((size, size), network.channels(side), (), (), crop=1 / enlarge, interpolation="bicubic"), model
        )
        for side in ("A", "B")
    )
    return MadeLooks(a, b, family.make_given(model, None))


def measure_alone(
    family: AloneFamily, model: nn.Module, split: TwoSides, looks: Looks
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The metrics of a split, and those of each picture, `pairs` (N, len(METRICS))."""
    rows = []
    for start in range(0, len(split), CHUNK):
        indices = np.arange(start, min(start + CHUNK, len(split)))
        given, truth = (looks.pictures(split, side, indices) for side in ("A", "B"))
        found = translated(model, given, "AtoB")
        rows += [family.figures(*each) for each in zip(given, found, truth, strict=True)]
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(family.METRICS))
    return family.summary(values), {"pairs": values}


class Translates(nn.Module):
    """A model as what it makes of images of A."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return network_of(self.model).translate(images, "AtoB")
