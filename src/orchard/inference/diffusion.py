"""Images out of noise: the steps back of a diffusion process, and how many bits an image costs it.

Legend: `nn/noise_schedule.py`. A sampler takes a step, `sample` takes all of them. `predict(x_t, timesteps)` is the
model with whatever it is conditioned on; what it predicts, the process knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from orchard.inference.generators import generators
from orchard.nn.diffusion import Denoised, Diffusion
from orchard.nn.diffusion_loss import bound_terms, mean_of_images, prior_term

Predict = Callable[[Tensor, Tensor], Tensor]  # x_t (B, C, H, W) and timesteps (B,) float to the model's output


class Sampler(Protocol):
    """One step back: x_{t-1} from x_t, from what the model found in it, and from standard normal noise."""

    def step(self, process: Diffusion, found: Denoised, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Ancestral:
    """A draw from p(x_{t-1} | x_t) (Ho et al. 2020, algorithm 2)."""

    def step(self, process: Diffusion, found: Denoised, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return found.mean + _unless_first(t) * (0.5 * found.log_variance).exp() * noise


@dataclass(frozen=True)
class DDIM:
    """A step that keeps the noise it found in x_t (Song et al. 2021, arXiv:2010.02502, equation 12).

    `eta` is the share of new noise: 0 makes the image a function of the start, 1 is a DDPM.
    """

    eta: float = 0.0

    def step(self, process: Diffusion, found: Denoised, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        s = process.schedule
        now, before = s.alpha_bars, s.alpha_bars_before
        sigma = self.eta * s.at(((1 - before) / (1 - now) * (1 - now / before)).sqrt(), t)
        kept = (1 - s.at(before, t) - sigma**2).clamp(min=0).sqrt() * s.noise_from_x0(x_t, found.x0, t)
        return s.at(before.sqrt(), t) * found.x0 + kept + _unless_first(t) * sigma * noise


def ddim_encode(process: Diffusion, found: Denoised, x_t: Tensor, t: Tensor) -> Tensor:
    """DDIM's step in the other direction, x_{t+1} from x_t (the same, section 4.3): noise that an image comes from."""
    s = process.schedule
    after = torch.cat([s.alpha_bars[1:], s.alpha_bars.new_zeros(1)])
    noise = s.noise_from_x0(x_t, found.x0, t)
    return s.at(after.sqrt(), t) * found.x0 + s.at((1 - after).sqrt(), t) * noise


@torch.no_grad()
def sample(
    process: Diffusion, predict: Predict, noise: Callable[[], Tensor], sampler: Sampler, *, clip: bool
) -> Iterator[Tensor]:
    """All steps from noise to images: yields x after each, (B, C, H, W), the last of them the images.

    `noise` gives standard normal numbers, (B, C, H, W), where the process is: the start first, then once for each step.
    """
    x = noise()
    for step in reversed(range(len(process.schedule))):
        t = torch.full((len(x),), step, device=x.device)
        output = predict(x, process.schedule.timesteps[t].float())
        x = sampler.step(process, process.denoise(output, x, t, clip=clip), x, t, noise())
        yield x


class ImageNoise:
    """Standard normal noise of which every image has its own sequence, given by the seed and the image's number.

    So an image does not depend on what is drawn beside it. Called, it gives the next of each, (B, *shape) float32.
    """

    def __init__(self, seed: int, numbers: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"):
        self.shape, self.device = shape, device
        self.generators = list(generators(seed, numbers))

    def __call__(self) -> Tensor:
        drawn = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)


@dataclass(frozen=True)
class Bits:
    """The variational bound of images, bits per dimension: `prior` (B,), `terms` (B, S), the first step first."""

    prior: Tensor
    terms: Tensor
    x0_errors: Tensor  # (B, S), mean squared error of the image that was found at each step
    noise_errors: Tensor  # (B, S), and of the noise

    @property
    def total(self) -> Tensor:
        return self.prior + self.terms.sum(1)


@torch.no_grad()
def bits_per_dimension(
    process: Diffusion, predict: Predict, x0: Tensor, noise: Callable[[], Tensor], *, clip: bool
) -> Bits:
    """The bound by all S steps, with one draw of noise for each, the last step first."""
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in reversed(range(len(process.schedule))):
        t = torch.full((len(x0),), step, device=x0.device)
        drawn = noise()
        x_t = process.schedule.add_noise(x0, drawn, t)
        found = process.denoise(predict(x_t, process.schedule.timesteps[t].float()), x_t, t, clip=clip)
        again = process.schedule.noise_from_x0(x_t, found.x0, t)
        errors = mean_of_images((found.x0 - x0) ** 2), mean_of_images((again - drawn) ** 2)
        rows.append((bound_terms(process, found, x0, x_t, t), *errors))
    terms, x0_errors, noise_errors = (torch.stack(column[::-1], dim=1) for column in zip(*rows, strict=True))
    return Bits(prior_term(process.schedule, x0), terms, x0_errors, noise_errors)


def _unless_first(t: Tensor) -> Tensor:
    """0 at the first step, after which there is no noise, else 1: (B, 1, 1, 1)."""
    return (t != 0).float()[:, None, None, None]
