"""What a denoising model's output means: which of the quantities it predicts, and where a step's variance comes from.

p(x_{t-1} | x_t) is a Gaussian. Its mean follows from whatever the model predicts (the noise, the image, a mixture of
both, or the mean itself), its variance from the schedule or from the model. Legend: `nn/noise_schedule.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchard.nn.noise_schedule import NoiseSchedule


class Prediction(ABC):
    """What the model predicts."""

    @abstractmethod
    def target(self, schedule: NoiseSchedule, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What the output should have been."""

    @abstractmethod
    def x0(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The images that the output stands for."""

    def mean(self, schedule: NoiseSchedule, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of p(x_{t-1} | x_t): that of the posterior with the images `x0` that were found."""
        return schedule.posterior_mean(x0, x_t, t)


class Epsilon(Prediction):
    """The noise (Ho et al. 2020, section 3.2)."""

    def target(self, schedule: NoiseSchedule, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return noise

    def x0(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return schedule.x0_from_noise(x_t, output, t)


class Image(Prediction):
    """The image without noise."""

    def target(self, schedule: NoiseSchedule, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return x0

    def x0(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return output


class Velocity(Prediction):
    """√ᾱ noise - √(1 - ᾱ) image (Salimans & Ho 2022, arXiv:2202.00512, appendix D)."""

    def target(self, schedule: NoiseSchedule, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self._turn(schedule, noise, x0, t)

    def x0(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self._turn(schedule, x_t, output, t)

    def _turn(self, schedule: NoiseSchedule, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        bars = schedule.alpha_bars
        return schedule.at(bars.sqrt(), t) * a - schedule.at((1 - bars).sqrt(), t) * b


class PreviousMean(Prediction):
    """The mean of x_{t-1} itself (Ho et al. 2020, equation 8)."""

    def target(self, schedule: NoiseSchedule, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return schedule.posterior_mean(x0, x_t, t)

    def x0(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        of_x0, of_xt = schedule.posterior_weights
        return schedule.at(1 / of_x0, t) * output - schedule.at(of_xt / of_x0, t) * x_t

    def mean(self, schedule: NoiseSchedule, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return output


class Variance(ABC):
    """Where the variance of a step comes from; a learned one has as many channels of output as the image."""

    learned = False

    @abstractmethod
    def log(self, schedule: NoiseSchedule, values: Tensor, t: Tensor) -> Tensor:
        """log σ², a shape that broadcasts to (B, C, H, W), from the output `values` for it."""


class FixedSmall(Variance):
    """That of the posterior, right for images that are all one point (Ho et al. 2020, section 3.2)."""

    def log(self, schedule: NoiseSchedule, values: Tensor, t: Tensor) -> Tensor:
        return schedule.at(schedule.posterior_log_variances, t)


class FixedLarge(Variance):
    """β, right for images that are noise. At the first step that of the posterior, for a better likelihood."""

    def log(self, schedule: NoiseSchedule, values: Tensor, t: Tensor) -> Tensor:
        return schedule.at(torch.cat([schedule.posterior_variances[1:2], schedule.betas[1:]]).log(), t)


class Learned(Variance):
    """The output is log σ²."""

    learned = True

    def log(self, schedule: NoiseSchedule, values: Tensor, t: Tensor) -> Tensor:
        return values


class LearnedRange(Variance):
    """The output says where log σ² lies between the two fixed ones, from -1 to 1 (Nichol & Dhariwal 2021, eq. 15)."""

    learned = True

    def log(self, schedule: NoiseSchedule, values: Tensor, t: Tensor) -> Tensor:
        share = (values + 1) / 2
        large, small = schedule.betas.log(), schedule.posterior_log_variances
        return share * schedule.at(large, t) + (1 - share) * schedule.at(small, t)


PREDICTIONS: dict[str, Prediction] = {
    "epsilon": Epsilon(), "image": Image(), "velocity": Velocity(), "previous": PreviousMean()
}  # fmt: skip
VARIANCES: dict[str, Variance] = {
    "fixed_small": FixedSmall(), "fixed_large": FixedLarge(), "learned": Learned(), "learned_range": LearnedRange()
}  # fmt: skip


@dataclass(frozen=True)
class Denoised:
    """What a model's output says about a step back, each (B, C, H, W).

    output: the prediction itself;
    x0: the images without noise that it stands for;
    mean, log_variance: of p(x_{t-1} | x_t).
    """

    output: Tensor
    x0: Tensor
    mean: Tensor
    log_variance: Tensor


@dataclass(frozen=True)
class Diffusion:
    """A process: how much noise, what is predicted, and with which variance a step back is taken."""

    schedule: NoiseSchedule
    prediction: Prediction
    variance: Variance

    def to(self, device: torch.device | str) -> Diffusion:
        return Diffusion(self.schedule.to(device), self.prediction, self.variance)

    def keep(self, steps: Sequence[int]) -> Diffusion:
        """The process that takes only these steps, see `NoiseSchedule.keep`."""
        return Diffusion(self.schedule.keep(steps), self.prediction, self.variance)

    def denoise(self, output: Tensor, x_t: Tensor, t: Tensor, *, clip: bool) -> Denoised:
        """Read a model's output (B, C or 2C, H, W) for noisy images; `clip` keeps what it sees in them within [-1, 1].

        Raises ValueError where the output has other channels than the variance needs.
        """
        channels = x_t.shape[1]
        wanted = channels * (2 if self.variance.learned else 1)
        if output.shape[1] != wanted:
            raise ValueError(
                f"{type(self.variance).__name__} expects {wanted} channels of output for {channels} of the image, "
                f"got {output.shape[1]}"
            )
        output, values = output[:, :channels].float(), output[:, channels:].float()
        x0 = self.prediction.x0(self.schedule, output, x_t, t)
        x0 = x0.clamp(-1, 1) if clip else x0
        mean = self.prediction.mean(self.schedule, output, x0, x_t, t)
        return Denoised(output, x0, mean, self.variance.log(self.schedule, values, t).expand_as(mean))
