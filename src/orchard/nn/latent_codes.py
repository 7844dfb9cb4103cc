"""Codes that generated images shall show: which there are, and how much of them can be read off an image.

Chen et al. 2016 (arXiv:1606.03657, sections 4 and 5). Categories are one of K, a row of zeros with a one; continuous
codes are uniform in [-1, 1]. Legend: B samples, E numbers that all codes are written with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LatentCodes:
    """How many values each categorical code has, and how many continuous codes there are."""

    categories: tuple[int, ...]
    continuous: int

    @property
    def width(self) -> int:
        """E."""
        return sum(self.categories) + self.continuous

    def split(self, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """Of (B, E), each categorical code's columns (B, K), and the continuous ones (B, continuous)."""
        *parts, continuous = torch.split(rows, [*self.categories, self.continuous], dim=1)
        return list(parts), continuous

    def sample(self, count: int, generator: torch.Generator | None, device: torch.device | str | None) -> Tensor:
        """Codes (count, E), all values as likely."""
        parts = []
        for values in self.categories:
            drawn = torch.randint(values, (count,), generator=generator, device=device)
            parts.append(F.one_hot(drawn, values).float())
        parts.append(2 * torch.rand(count, self.continuous, generator=generator, device=device) - 1)
        return torch.cat(parts, dim=1)

    def information(self, codes: Tensor, found: Tensor) -> Tensor:
        """A lower bound of the mutual information of codes and images, in nats, a scalar (equation 5).

        Args:
            codes: (B, E), those that images were made of.
            found: (B, E), what is read off the images: logits of categories, and means of continuous codes, each of a
                normal distribution of variance one, as in the authors' code for MNIST.

        The entropy of the codes less the cross entropy of what is found. It is at most that entropy.
        """
        asked, numbers = self.split(codes)
        logits, means = self.split(found.float())
        entropy = sum(math.log(values) for values in self.categories) + self.continuous * math.log(2)
        missed = sum((F.cross_entropy(a, b) for a, b in zip(logits, asked, strict=True)), found.new_zeros(()))
        density = 0.5 * math.log(2 * math.pi) + 0.5 * (numbers - means).square()
        return entropy - missed - density.sum(1).mean()
