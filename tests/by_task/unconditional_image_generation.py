"""Of a denoiser, the noise of four images; of an adversarial pair, each side wins while the other stands still."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    return (model, adversaries(model)) if hasattr(model, "discriminator") else (model, denoiser(name, model))


def adversaries(model: Any) -> Loss:
    """The generator has to please the discriminator as it started, the discriminator to tell the generator's first
    images from random ones; measured is the worse of the two non-saturating losses, per image."""
    from orchard.tasks.unconditional_image_generation.losses import LOSSES

    c, loss = model.config, LOSSES["non-saturating"]
    real = torch.rand(4, c.in_channels, c.image_size, c.image_size) * 2 - 1
    noise = model.sample_noise(4)
    labels = (torch.arange(4) % c.num_classes,) if hasattr(model.config, "num_classes") else ()
    first, fake = copy.deepcopy(model.discriminator).requires_grad_(False), model.generate(noise, *labels)

    def both() -> tuple[Tensor, Tensor]:
        judged = loss.discriminator(model.discriminator(real, *labels), model.discriminator(fake, *labels)) / 2
        forged = loss.generator(first(model(noise, *labels), *labels))
        return judged + forged, torch.maximum(judged, forged)

    return both


def denoiser(name: str, model: Any) -> Loss:
    """The mean squared error of what was added to the images; knowing nothing costs 1."""
    inputs = example(name, model.config, 4)
    noise = torch.randn_like(inputs["images"])

    def loss() -> tuple[Tensor, Tensor]:
        found = F.mse_loss(model(**inputs)[:, : noise.shape[1]], noise)
        return found, found

    return loss


HOOKS = Hooks(learn)
