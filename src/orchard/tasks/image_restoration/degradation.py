"""What clean images are degraded by, for training and for evaluation: a name and how strongly. Read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEVELS = (15.0, 25.0, 50.0)  # at which the field compares denoisers
TOP = 255.0
FORM = re.compile(r"noise:(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Noise:
    """White Gaussian noise. Its standard deviation is from `low` to `high`, of levels from 0 to 255."""

    low: float
    high: float

    @property
    def levels(self) -> tuple[float, ...]:
        """The standard deviations at which is evaluated: those of `LEVELS` in the range, else its upper end."""
        return tuple(level for level in LEVELS if self.low <= level <= self.high) or (self.high,)

    def draw(self, count: int, device: torch.device) -> Tensor:
        """A standard deviation for each of `count` images, (count,), each in the range as likely."""
        import torch

        return self.low + (self.high - self.low) * torch.rand(count, device=device)

    def add(self, clean: Tensor, sigma: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) from 0 to 255 with noise of `sigma` (B,), neither rounded nor cut."""
        import torch

        drawn = torch.randn(clean.shape, generator=generator, device=clean.device)
        return clean + sigma.view(-1, 1, 1, 1) * drawn


def read_degradation(text: str) -> Noise:
    """`noise:25` or `noise:0-55`. Raises ValueError for what is neither."""
    found = FORM.fullmatch(text)
    low, high = (float(found[1]), float(found[2] or found[1])) if found else (1.0, 0.0)
    if not low <= high <= TOP or not high:
        raise ValueError(f"expected noise:25 or noise:0-55, standard deviations of levels from 0 to 255, got {text}")
    return Noise(low, high)


def _checked(text: str) -> str:
    read_degradation(text)
    return text


Degradation = Annotated[str, AfterValidator(_checked)]
