"""What every denoiser offers: a network that looks at noisy images, and the process that says what it sees.

A denoiser's weights mean nothing without the process that they were trained for, so it is part of the configuration.
How they learn is an objective of the task "unconditional-image-generation", how images are made of noise
`orchard.inference.diffusion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchard.models import example_pictures
from orchard.nn.denoising_unet import UNet, UNetConfig
from orchard.nn.diffusion import PREDICTIONS, VARIANCES, Diffusion
from orchard.nn.noise_schedule import BETAS, noise_schedule
from orchard.nn.quantizer import check_pictures
from orchard.nn.timestep import check_timesteps


@dataclass(frozen=True)
class DenoiserConfig(UNetConfig):
    """The shape of the network, and the process, whose words are those of `noise_schedule` and `diffusion` in nn."""

    schedule: Literal["linear", "cosine"] = "linear"
    timesteps: int = 1000  # of the process
    timestep_range: float = 1000  # the model is told a step's place from 0 to below this
    prediction: Literal["epsilon", "image", "velocity", "previous"] = "epsilon"
    variance: Literal["fixed_small", "fixed_large", "learned", "learned_range"] = "fixed_large"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("schedule", BETAS), ("prediction", PREDICTIONS), ("variance", VARIANCES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.timesteps < 2:
            raise ValueError(f"timesteps is 2 or more, got {self.timesteps}")

    @property
    def out_channels(self) -> int:
        """Channels of the prediction: a learned variance has as many as the image."""
        return self.in_channels * (2 if VARIANCES[self.variance].learned else 1)

    def process(self) -> Diffusion:
        """The process that a model of this configuration is trained for."""
        schedule = noise_schedule(self.schedule, self.timesteps, self.timestep_range)
        return Diffusion(schedule, PREDICTIONS[self.prediction], VARIANCES[self.variance])


class Denoiser(nn.Module):
    """Noisy images (B, C, H, W) and timesteps (B,) to the prediction (B, C or 2C, H, W) of `config.process()`.

    Sub-classes have a `unet`, and an embedding of the timestep for it.
    """

    value_range = (-1.0, 1.0)  # of the images it was trained with, before noise
    config: DenoiserConfig
    unet: UNet

    def check(self, images: Tensor, timesteps: Tensor) -> None:
        """Raise ValueError unless these are images of the configuration's channels and a timestep for each."""
        check_pictures(images, self.config.in_channels, self.config.stride)
        check_timesteps(timesteps, images.shape[0])


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Noisy images, timesteps anywhere in the range, and classes where the model has some."""
    timesteps = 0.999 * config.timestep_range * torch.rand(count, generator=generator)
    inputs = {**example_pictures(config, count, generator), "timesteps": timesteps}
    if getattr(config, "classes", 0):
        inputs["classes"] = torch.randint(config.classes, (count,), generator=generator)
    return inputs
