"""How good translations are: of pairs by pixels; without pairs by what there and back changes, and by features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.data.two_sides.contracts import SIDES, TwoSides
from orchard.data.two_sides.loader import evaluation_pictures
from orchard.inference.frechet import frechet_distance
from orchard.models.translation.contract import Direction
from orchard.tasks.image_to_image.translating import TOP, network_of, translated
from orchard.tasks.super_resolution.metrics import psnr, ssim
from orchard.tasks.unconditional_image_generation.compared import need_two
from orchard.tasks.unconditional_image_generation.judge import make_judge

WAYS: tuple[Direction, ...] = ("AtoB", "BtoA")
CHUNK = 64  # pictures that are decoded at a time


@dataclass(frozen=True)
class Looks:
    """How pictures of either side come to the model."""

    a: Preprocess
    b: Preprocess

    def pictures(self, split: TwoSides, side: str, indices: np.ndarray) -> Tensor:
        """(N, C, S, S) uint8 of one side of a split."""
        return evaluation_pictures(split.side(side), indices, self.a if side == "A" else self.b)


def measure_pairs(
    model: nn.Module, split: TwoSides, looks: Looks, direction: str, mine: range
) -> Tensor:  # fmt: skip
    """Of each pair in `mine` the absolute difference of pixels (range 1), PSNR in dB and SSIM, (N, 3) float64."""
    rows = []
    for indices in _chunks(mine):
        given, wanted = (looks.pictures(split, side, indices) for side in (direction[0], direction[-1]))
        for made, truth in zip(translated(model, given, "AtoB").float(), wanted.float(), strict=True):
            rows.append((float((made - truth).abs().mean()) / TOP, psnr(made, truth), ssim(made, truth)))
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)


def summary_of_pairs(rows: Tensor) -> dict[str, float]:
    """The means of `measure_pairs`."""
    return dict(zip(("l1", "psnr", "ssim"), rows.mean(0).tolist(), strict=True))


def measure_sides(model: nn.Module, split: TwoSides, looks: Looks) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics of both directions, and of each picture of A and of B what there and back changes, (N,) in range 1.

    The Fréchet distance is between translations of one side and pictures of the other, in the features of a network of
    fixed random weights; `fid` is the mean of both directions.
    """
    channels = network_of(model).channels("A")
    judge = make_judge(None, channels, next(model.parameters()).device)
    real: dict[str, Tensor] = {}
    made: dict[str, Tensor] = {}
    changed: dict[str, Tensor] = {}
    for side, there, back in zip(SIDES, WAYS, reversed(WAYS), strict=True):
        features: list[tuple[Tensor, Tensor]] = []
        differences = []
        for indices in _chunks(range(len(split.side(side)))):
            pictures = looks.pictures(split, side, indices)
            other = translated(model, pictures, there)
            again = translated(model, other, back)
            differences.append((again.float() - pictures.float()).abs().mean((1, 2, 3)) / TOP)
            features.append((judge.features(pictures), judge.features(other)))
        changed[side] = torch.cat(differences)
        real[side], made[there] = (torch.cat(parts) for parts in zip(*features, strict=True))
    distances = {way: frechet_distance(real[way[-1]], made[way]) for way in WAYS}
    cycle = {side: float(values.double().mean()) for side, values in changed.items()}
    metrics = {
        "fid": sum(distances.values()) / 2,
        **{f"fid_{way}": distance for way, distance in distances.items()},
        "cycle_l1": sum(cycle.values()) / 2,
        **{f"cycle_l1_{side}": value for side, value in cycle.items()},
    }
    return metrics, changed


def check_counts(splits: Mapping[str, TwoSides]) -> None:
    """OrchardError for a split that `measure_sides` cannot compare: with one picture of a side."""
    for name, split in splits.items():
        for side in SIDES:
            need_two(name, len(split.side(side)), f" of side {side}")


def _chunks(indices: range) -> list[np.ndarray]:
    return cast(
        "list[np.ndarray]", [np.array(indices[start : start + CHUNK]) for start in range(0, len(indices), CHUNK)]
    )  # fmt: skip
