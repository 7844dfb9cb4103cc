"""What a denoising model is trained by: squared error, the bound on the likelihood, or both.

Legend: `nn/noise_schedule.py`. The bound's terms are in bits per dimension (per channel of a pixel), so that their sum
over all steps, with that of the prior, bounds what it costs to store an image of 8 bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orchard.nn.diffusion import Denoised, Diffusion
from orchard.nn.noise_schedule import NoiseSchedule

LEAST_PROBABILITY = 1e-12


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, σ²) || N(other_mean, other σ²)) in nats, elementwise over shapes that broadcast."""
    difference = log_variance - other_log_variance
    return 0.5 * (difference.expm1() - difference + (mean - other_mean) ** 2 * (-other_log_variance).exp())


def normal_cdf(x: Tensor) -> Tensor:
    """The standard normal distribution's cumulative function, by the tanh of GELU's tanh form (right to 2e-4)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretized_log_likelihood(x0: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log probability, in nats, of 8-bit values in [-1, 1] under a Gaussian cut into 256 bins (Ho et al. 2020, eq. 13).

    The outermost bins reach to infinity.
    """
    scale = (-log_std).exp()
    below = normal_cdf(scale * (x0 - mean - 1 / 255)).where(x0 > -0.999, 0)
    upto = normal_cdf(scale * (x0 - mean + 1 / 255)).where(x0 < 0.999, 1)
    return (upto - below).clamp(min=LEAST_PROBABILITY).log()


def bound_terms(process: Diffusion, found: Denoised, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """One term of the variational bound for each image, (B,) bits per dimension (Ho et al. 2020, equation 5).

    KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), and at the first step -log p(x_0 | x_1).
    """
    schedule = process.schedule
    mean, log_variance = schedule.posterior_mean(x0, x_t, t), schedule.at(schedule.posterior_log_variances, t)
    divergence = gaussian_kl(mean, log_variance, found.mean, found.log_variance)
    likelihood = discretized_log_likelihood(x0, found.mean, 0.5 * found.log_variance)
    return torch.where(t == 0, -mean_of_images(likelihood), mean_of_images(divergence)) / math.log(2)


def prior_term(schedule: NoiseSchedule, x0: Tensor) -> Tensor:
    """What the image still has to say at the last step, KL(q(x_T | x_0) || N(0, 1)), (B,) bits per dimension."""
    left = schedule.alpha_bars[-1]
    nothing = torch.zeros((), device=x0.device)
    divergence = gaussian_kl(left.sqrt().float() * x0, (1 - left).log().float(), nothing, nothing)
    return mean_of_images(divergence) / math.log(2)


def mean_of_images(values: Tensor) -> Tensor:
    """(B, C, H, W) → (B,)."""
    return values.flatten(1).mean(1)


class DiffusionLoss(ABC):
    """A loss for each image, by its parts: `loss` is what is learned from, (B,)."""

    words: str  # what it is, for a person

    @abstractmethod
    def __call__(
        self, process: Diffusion, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class SimpleLoss(DiffusionLoss):
    """The squared error of the prediction, every step with the same weight (Ho et al. 2020, equation 14)."""

    words = "squared error"

    def __call__(
        self, process: Diffusion, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        found = process.denoise(output, x_t, t, clip=False)
        return {"loss": squared_error(process, found, x0, noise, x_t, t)}


@dataclass(frozen=True)
class HybridLoss(DiffusionLoss):
    """The squared error teaches the mean, and `bound_weight` times the bound the variance (Nichol & Dhariwal, eq. 16).

    A step's term stands for all S of them: a weight of S / 1000 is the paper's, which takes 0.001 times their sum.
    """

    bound_weight: float
    words = "squared error, and the bound for the variance"

    def __call__(
        self, process: Diffusion, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        found = process.denoise(output, x_t, t, clip=False)
        error = squared_error(process, found, x0, noise, x_t, t)
        still = replace(found, mean=found.mean.detach())  # so that the bound does not teach the mean
        bound = self.bound_weight * bound_terms(process, still, x0, x_t, t)
        return {"loss": error + bound, "squared_error": error, "bound": bound}


@dataclass(frozen=True)
class BoundLoss(DiffusionLoss):
    """The bound alone: `weight` times the term of a step. With a weight of S it estimates the sum."""

    weight: float
    words = "variational bound"

    def __call__(
        self, process: Diffusion, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        found = process.denoise(output, x_t, t, clip=False)
        return {"loss": self.weight * bound_terms(process, found, x0, x_t, t)}


def squared_error(process: Diffusion, found: Denoised, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The mean squared error of what the model predicts, (B,)."""
    target = process.prediction.target(process.schedule, x0, noise, x_t, t)
    return mean_of_images((found.output - target) ** 2)
