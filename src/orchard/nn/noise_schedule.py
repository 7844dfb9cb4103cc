"""How much noise an image has at every step of a diffusion process, and what follows from it by arithmetic alone.

q(x_t | x_{t-1}) = N(√(1 - β_t) x_{t-1}, β_t), so that x_t is known from x_0 in one go (Ho et al. 2020,
arXiv:2006.11239, section 2). Legend: S steps, counted from 0; t (B,) int64, the step of each image; x_0 images without
noise, x_t with the noise of t + 1 steps, all (B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MOST_BETA = 0.999  # of the cosine schedule, whose last step would leave nothing of the image


def linear_betas(steps: int) -> Tensor:
    """β from 1e-4 to 0.02 over 1000 steps, (steps,) float64; other numbers of steps add about as much noise in all."""
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Tensor:
    """β under which what is left of an image falls as a squared cosine, (steps,) float64.

    Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17.
    """
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    left = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - left[1:] / left[:-1]).clamp(max=MOST_BETA)


BETAS = {"linear": linear_betas, "cosine": cosine_betas}


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The tables of a process, (S,) float64 each, where `betas` is. Indices t are on the same device.

    `timesteps` is what the model is told at each step.
    """

    betas: Tensor
    timesteps: Tensor

    def __len__(self) -> int:
        return len(self.betas)

    def to(self, device: torch.device | str) -> NoiseSchedule:
        return NoiseSchedule(self.betas.to(device), self.timesteps.to(device))

    @cached_property
    def alpha_bars(self) -> Tensor:
        """The share of the image in the variance of x_t."""
        return (1 - self.betas).cumprod(0)

    @cached_property
    def alpha_bars_before(self) -> Tensor:
        """The same one step earlier; 1 before the first."""
        return torch.cat([self.alpha_bars.new_ones(1), self.alpha_bars[:-1]])

    @cached_property
    def posterior_variances(self) -> Tensor:
        """Of q(x_{t-1} | x_t, x_0), equation 7; 0 at the first step."""
        return self.betas * (1 - self.alpha_bars_before) / (1 - self.alpha_bars)

    @cached_property
    def posterior_log_variances(self) -> Tensor:
        """Their logarithms, the first replaced by the second, as its own is minus infinity."""
        return torch.cat([self.posterior_variances[1:2], self.posterior_variances[1:]]).log()

    @cached_property
    def posterior_weights(self) -> tuple[Tensor, Tensor]:
        """What x_0 and x_t are multiplied by in the mean of q(x_{t-1} | x_t, x_0), equation 7."""
        of_x0 = self.betas * self.alpha_bars_before.sqrt() / (1 - self.alpha_bars)
        of_xt = (1 - self.alpha_bars_before) * (1 - self.betas).sqrt() / (1 - self.alpha_bars)
        return of_x0, of_xt

    def at(self, table: Tensor, t: Tensor) -> Tensor:
        """One entry for each image, (B, 1, 1, 1) float32."""
        return table[t].float()[:, None, None, None]

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t from images and standard normal noise, equation 4."""
        return self.at(self.alpha_bars.sqrt(), t) * x0 + self.at((1 - self.alpha_bars).sqrt(), t) * noise

    def x0_from_noise(self, x_t: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The images, if this is the noise in x_t."""
        return self.at((1 / self.alpha_bars).sqrt(), t) * x_t - self.at((1 / self.alpha_bars - 1).sqrt(), t) * noise

    def noise_from_x0(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t, if these are the images: the inverse of `x0_from_noise`."""
        return (self.at((1 / self.alpha_bars).sqrt(), t) * x_t - x0) / self.at((1 / self.alpha_bars - 1).sqrt(), t)

    def posterior_mean(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of q(x_{t-1} | x_t, x_0)."""
        of_x0, of_xt = self.posterior_weights
        return self.at(of_x0, t) * x0 + self.at(of_xt, t) * x_t

    def keep(self, steps: Sequence[int]) -> NoiseSchedule:
        """The process that takes only these steps, in rising order, and meets the noise of the whole one at each.

        Nichol & Dhariwal 2021, section 4, equation 19.
        """
        kept = torch.tensor(steps, dtype=torch.int64, device=self.betas.device)
        bars = self.alpha_bars[kept]
        before = torch.cat([bars.new_ones(1), bars[:-1]])
        return NoiseSchedule(1 - bars / before, self.timesteps[kept])


def noise_schedule(name: str, steps: int, timestep_range: float = 1000) -> NoiseSchedule:
    """The schedule `linear` or `cosine` of as many steps, whose model is told timesteps from 0 to below the range."""
    timesteps = torch.arange(steps, dtype=torch.float64) * (timestep_range / steps)
    return NoiseSchedule(BETAS[name](steps), timesteps)


def spaced_steps(total: int, counts: Sequence[int]) -> list[int]:
    """Steps to keep out of `total`: as many equal sections as `counts` has numbers, each with so many, ends included.

    One count spreads the steps evenly over the whole process. Raises ValueError where a section has too few.
    """
    kept: list[int] = []
    start = 0
    for n, count in enumerate(counts):
        size = total // len(counts) + (n < total % len(counts))
        if not 1 <= count <= size:
            raise ValueError(f"expected 1 to {size} steps in a section of {size}, got {count}")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        kept += [start + round(k * stride) for k in range(count)]
        start += size
    return kept


def strided_steps(total: int, stride: int) -> list[int]:
    """Every `stride`-th step from the first (Song et al. 2021, arXiv:2010.02502, appendix D.2)."""
    return list(range(0, total, stride))
