"""DDPM: images out of noise, one small step at a time (Ho, Jain, Abbeel 2020, arXiv:2006.11239).

Noise is added to an image in T steps until nothing else is left, and a U-Net learns to say which noise was added. Taken
away again step by step, it leaves a new image. The network is here; what the steps are is `orchard.nn.diffusion`, how
they are taken `orchard.inference.diffusion`. Legend: B images, C channels, E the width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.ddpm_names import ddim_names, hf_2022_names, hf_names, tensorflow_names
from orchard.models.generation.denoiser import Denoiser, DenoiserConfig, example
from orchard.nn.autoencoder import Downsample, SpatialAttention
from orchard.nn.denoising_unet import ResidualBlock, UNet
from orchard.nn.timestep import ShiftThenNorm, TimestepEmbedding

EPS = 1e-6


@dataclass(frozen=True)
class DDPMConfig(DenoiserConfig):
    """A U-Net's shape and a process: Ho et al. have no choices beyond."""


class DDPM(Denoiser):
    """Noisy images (B, C, H, W) and timesteps (B,), from 0 to below 1000, to a prediction (B, C or 2C, H, W)."""

    def __init__(self, config: DDPMConfig):
        super().__init__()
        self.config = c = config
        width = 4 * c.width

        def norm(channels: int) -> nn.GroupNorm:
            return nn.GroupNorm(c.groups, channels, eps=EPS)

        def block(inputs: int, outputs: int) -> ResidualBlock:
            entry = ShiftThenNorm(outputs, width, norm(outputs))
            return ResidualBlock(inputs, outputs, norm1=norm(inputs), norm2=entry, dropout=c.dropout)

        self.time = TimestepEmbedding(c.width, width, order="sin_cos", endpoint=True)
        self.unet = UNet(
            c,
            c.out_channels,
            block=block,
            attention=lambda channels: SpatialAttention(channels, c.groups, heads=1, eps=EPS),
            downsample=Downsample,
            norm_out=norm(c.widths[0]),
        )
        self._initialise()

    def _initialise(self) -> None:
        """Uniform weights by fan-in and fan-out, no biases; the last layer of a branch begins at zero."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(
                module, SpatialAttention
            ):  # three layers in one matrix, of which each has a fan-out of its own
                for matrix in module.attention.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(matrix)
        for layer in self.unet.last_layers():
            nn.init.zeros_(layer.weight)

    def forward(self, images: Tensor, timesteps: Tensor) -> Tensor:
        self.check(images, timesteps)
        return self.unet(images, self.time(timesteps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("time.",), *self.unet.layer_groups("unet")]


_SMALL: dict[str, Any] = dict(in_channels=1, blocks=1, groups=8)

VARIANTS = {
    "ddpm_nano": DDPMConfig(28, (1, 2, 2), attention_at=(7, 8), width=16, **_SMALL),
    "ddpm_cifar10": DDPMConfig(32, (1, 2, 2, 2), dropout=0.1),
    "ddpm_256": DDPMConfig(256, (1, 1, 2, 2, 4, 4)),
}
LANDMARK = Landmark(
    model=DDPM,
    variants=VARIANTS,
    names={"ddim": ddim_names, "tensorflow": tensorflow_names, "hf": hf_names, "hf_2022": hf_2022_names},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example,
)
