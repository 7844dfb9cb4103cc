"""What clean images are degraded by, for training and for evaluation: a name and how strongly. Read without torch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOP = 255.0
FORM = re.compile(r"(noise|rain):(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Degradation(ABC):
    """One kind of it, from a level of `low` to one of `high`."""

    low: float
    high: float
    name: ClassVar[str]
    most: ClassVar[float]  # the largest level
    compared: ClassVar[tuple[float, ...]]  # the levels at which networks are compared

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels at which is evaluated: those of `compared` in the range, else its upper end."""
        return tuple(level for level in self.compared if self.low <= level <= self.high) or (self.high,)

    def draw(self, count: int, device: torch.device) -> Tensor:
        """A level for each of `count` images, (count,), each in the range as likely."""
        import torch

        return self.low + (self.high - self.low) * torch.rand(count, device=device)

    @abstractmethod
    def add(self, clean: Tensor, level: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) from 0 to 255, degraded by `level` (B,), neither rounded nor cut."""

    @abstractmethod
    def words(self, *levels: float) -> str:
        """Levels as a report says them."""


class Noise(Degradation):
    """White Gaussian noise. A level is its standard deviation, of levels from 0 to 255."""

    name, most = "noise", TOP
    compared = (15.0, 25.0, 50.0)  # as the field has them

    def add(self, clean: Tensor, level: Tensor, generator: torch.Generator | None = None) -> Tensor:
        import torch

        drawn = torch.randn(clean.shape, generator=generator, device=clean.device)
        return clean + level.view(-1, 1, 1, 1) * drawn

    def words(self, *levels: float) -> str:
        return f"noise of {_listed(levels)} of 255"


class Rain(Degradation):
    """Streaks of rain (`rain.py`). A level is the percentage of the image that lies under them."""

    name, most = "rain", 100.0
    compared = (5.0, 25.0)  # light and heavy

    def add(self, clean: Tensor, level: Tensor, generator: torch.Generator | None = None) -> Tensor:
        from orchard.tasks.image_restoration.rain import add_rain

        return add_rain(clean, level, generator)

    def words(self, *levels: float) -> str:
        return f"rain on {_listed(levels)} % of the image"


def _listed(levels: tuple[float, ...]) -> str:
    return " and ".join(f"{level:g}" for level in levels)


def read_degradation(text: str) -> Degradation:
    """`noise:25`, `noise:0-55`, `rain:25` or `rain:0-40`. Raises ValueError for what is none of them."""
    found = FORM.fullmatch(text)
    if found:
        kind: type[Degradation] = Noise if found[1] == Noise.name else Rain
        low, high = float(found[2]), float(found[3] or found[2])
        if low <= high <= kind.most and high:
            return kind(low, high)
    raise ValueError(
        "expected noise:25 or noise:0-55, standard deviations of levels from 0 to 255, or rain:25 or rain:0-40, "
        f"percentages of the image under streaks, got {text}"
    )


def _checked(text: str) -> str:
    read_degradation(text)
    return text


DegradationName = Annotated[str, AfterValidator(_checked)]
