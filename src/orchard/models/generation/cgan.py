"""CGAN: an adversarial pair that is told what to make (Mirza and Osindero 2014, arXiv:1411.1784).

The class goes into both networks beside their input, each through layers of its own, before they meet (section 4.1).
Legend: B images, C channels, S pixels a side, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.gan import DISCRIMINATOR_BOUND, GENERATOR_BOUND, FlatImages, uniform
from orchard.models.generation.pair import ConditionalPair, example_noise_and_labels
from orchard.nn.checks import check_images
from orchard.nn.maxout import Maxout

DROPPED = 0.5  # share of hidden units that dropout leaves out, in both networks
PIECES, JOINT_PIECES = 5, 4  # linear functions that a maxout unit is the largest of, before and after both meet


@dataclass(frozen=True)
class CGANConfig(FlatImages):
    num_classes: int = 10
    noise: int = 100  # numbers that an image is made of
    prior: Literal["normal", "uniform"] = "uniform"  # what they are drawn from
    noise_units: int = 200  # of the generator's first layers, and of the one where both meet
    class_units: int = 1000
    joint_units: int = 1200
    image_maxout: int = 240  # units of the discriminator's
    class_maxout: int = 50
    joint_maxout: int = 240


class Generator(nn.Module):
    """Noise (B, noise) and labels (B,) → images (B, C, S, S) in [0, 1]."""

    def __init__(self, c: CGANConfig):
        super().__init__()
        self.classes = c.num_classes
        self.from_noise = nn.Sequential(nn.Linear(c.noise, c.noise_units), nn.ReLU(), nn.Dropout(DROPPED))
        self.from_class = nn.Sequential(nn.Linear(c.num_classes, c.class_units), nn.ReLU(), nn.Dropout(DROPPED))
        self.joint = nn.Sequential(
            nn.Linear(c.noise_units + c.class_units, c.joint_units),
            nn.ReLU(),
            nn.Dropout(DROPPED),
            nn.Linear(c.joint_units, c.pixels),
            nn.Sigmoid(),
            nn.Unflatten(1, c.shape),
        )
        uniform(self, GENERATOR_BOUND)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        classes = self.from_class(F.one_hot(labels, self.classes).to(noise.dtype))
        images: Tensor = self.joint(torch.cat([self.from_noise(noise), classes], dim=1))
        return images


class Discriminator(nn.Module):
    """Images (B, C, S, S) and labels (B,) → scores (B,): is the image real, and of its class?"""

    def __init__(self, c: CGANConfig):
        super().__init__()
        self.config = c
        self.from_image = nn.Sequential(nn.Flatten(), Maxout(c.pixels, c.image_maxout, PIECES), nn.Dropout(DROPPED))
        self.from_class = nn.Sequential(Maxout(c.num_classes, c.class_maxout, PIECES), nn.Dropout(DROPPED))
        self.joint = nn.Sequential(
            Maxout(c.image_maxout + c.class_maxout, c.joint_maxout, JOINT_PIECES), nn.Dropout(DROPPED)
        )
        self.score = nn.Linear(c.joint_maxout, 1)
        uniform(self, DISCRIMINATOR_BOUND)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        classes = self.from_class(F.one_hot(labels, self.config.num_classes).to(images.dtype))
        scores: Tensor = self.score(self.joint(torch.cat([self.from_image(images), classes], dim=1)))
        return scores.flatten()


class CGAN(ConditionalPair):
    """Noise (B, noise) and labels (B,) to images (B, C, S, S) in [0, 1], and images with labels to scores (B,)."""

    value_range = (0.0, 1.0)
    objective = "dcgan"  # the non-saturating loss, as GAN's code has it

    def __init__(self, config: CGANConfig):
        super().__init__(config, Generator(config), Discriminator(config))


VARIANTS = {
    "cgan": CGANConfig(),
    "cgan_nano": CGANConfig(
        noise=32, noise_units=64, class_units=64, joint_units=192, image_maxout=48, class_maxout=16, joint_maxout=48
    ),
}

LANDMARK = Landmark(
    model=CGAN,
    variants=VARIANTS,
    preprocess={"": {"mean": (0.0,), "std": (1.0,), "crop": 1.0}},
    example=example_noise_and_labels,
)
