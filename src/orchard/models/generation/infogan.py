"""InfoGAN: an adversarial pair whose noise has parts that mean something (Chen et al. 2016, arXiv:1606.03657).

Some of the noise are codes, categories and numbers. A head on the discriminator's layers reads them off the image, and
the generator learns to make them readable: what the codes come to stand for, nobody says. The shapes are those of the
authors' network for MNIST. Legend: B images, C channels, S pixels a side, E numbers that the codes are written with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.pair import AdversarialPair, example_noise
from orchard.nn.checks import check_images
from orchard.nn.latent_codes import LatentCodes

SLOPE = 0.01  # of the leaky ReLU
STD = 0.02  # of all weights at the start


@dataclass(frozen=True)
class InfoGANConfig:
    image_size: int = 28
    in_channels: int = 1
    unstructured: int = 62  # numbers of the noise that are no codes
    categories: tuple[int, ...] = (10,)  # values of each categorical code
    continuous: int = 2  # continuous codes
    prior: Literal["uniform"] = "uniform"
    width: int = 64  # channels at half the image's side, twice as many at a quarter
    hidden: int = 1024  # units of the layer between maps and rows, in both networks
    recognition: int = 128  # of the head that reads the codes

    def __post_init__(self) -> None:
        if self.image_size % 4:
            raise ValueError(f"an image of {self.image_size} pixels is not halved evenly twice")
        if not self.categories and not self.continuous:
            raise ValueError("there is one code or more, categorical or continuous")

    @property
    def codes(self) -> LatentCodes:
        return LatentCodes(tuple(self.categories), self.continuous)

    @property
    def noise(self) -> int:
        """Numbers that an image is made of: first those that are no codes."""
        return self.unstructured + self.codes.width


class Generator(nn.Module):
    """Noise with codes (B, noise) → images (B, C, S, S) in [0, 1]."""

    def __init__(self, c: InfoGANConfig):
        super().__init__()
        side, channels = c.image_size // 4, 2 * c.width
        self.layers = nn.Sequential(
            nn.Linear(c.noise, c.hidden),
            nn.BatchNorm1d(c.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(c.hidden, channels * side**2),
            nn.BatchNorm1d(channels * side**2),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (channels, side, side)),
            nn.ConvTranspose2d(channels, c.width, 4, stride=2, padding=1),
            nn.BatchNorm2d(c.width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(c.width, c.in_channels, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        images: Tensor = self.layers(noise)
        return images


class Discriminator(nn.Module):
    """Images (B, C, S, S) → scores (B,), and by `recognise` → the codes that it reads off them (B, E)."""

    def __init__(self, c: InfoGANConfig):
        super().__init__()
        self.config = c
        self.shared = nn.Sequential(
            nn.Conv2d(c.in_channels, c.width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(c.width, 2 * c.width, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * c.width),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Flatten(),
            nn.Linear(2 * c.width * (c.image_size // 4) ** 2, c.hidden),
            nn.BatchNorm1d(c.hidden),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.score = nn.Linear(c.hidden, 1)
        self.recognition = nn.Sequential(
            nn.Linear(c.hidden, c.recognition),
            nn.BatchNorm1d(c.recognition),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(c.recognition, c.codes.width),
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(self.features(images))
        return scores.flatten()

    def recognise(self, images: Tensor) -> Tensor:
        """Logits of the categories and means of the continuous codes, (B, E)."""
        codes: Tensor = self.recognition(self.features(images))
        return codes

    def features(self, images: Tensor) -> Tensor:
        """What score and codes are computed from, (B, hidden)."""
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        features: Tensor = self.shared(images)
        return features


class InfoGAN(AdversarialPair):
    """Noise with codes (B, noise) to images (B, C, S, S) in [0, 1], and images to scores (B,) and to codes (B, E)."""

    value_range = (0.0, 1.0)
    objective = "infogan"
    discriminator: Discriminator

    def __init__(self, config: InfoGANConfig):
        super().__init__(config, Generator(config), Discriminator(config))
        self.codes = config.codes
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.normal_(module.weight, mean=1.0, std=STD)

    def sample_noise(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Noise of `count` samples, (count, noise): uniform in [-1, 1], then the codes."""
        plain = 2 * torch.rand(count, self.noise_shape[0] - self.codes.width, generator=generator, device=device) - 1
        return torch.cat([plain, self.codes.sample(count, generator, device)], dim=1)

    def recognise(self, images: Tensor) -> Tensor:
        """The codes that the discriminator reads off images, (B, E)."""
        return self.discriminator.recognise(images)


VARIANTS = {
    "infogan": InfoGANConfig(),
    "infogan_nano": InfoGANConfig(unstructured=16, width=16, hidden=128, recognition=64),
}

LANDMARK = Landmark(
    model=InfoGAN,
    variants=VARIANTS,
    preprocess={"": {"mean": (0.0,), "std": (1.0,), "crop": 1.0}},
    example=example_noise,
)
