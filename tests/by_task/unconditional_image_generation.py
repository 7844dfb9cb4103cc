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
    low, high = model.value_range
    real = torch.rand(4, c.in_channels, c.image_size, c.image_size) * (high - low) + low
    noise = model.sample_noise(4)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()  # with it no two looks at the batch are alike
    first = copy.deepcopy(model.discriminator).requires_grad_(False)
    labels = favourite(first, real, c.num_classes) if hasattr(c, "num_classes") else ()
    fake = model.generate(noise, *labels)
    # One that starts nearly flat has nothing that could please it.
    steepness = max(1.0, 1 / float(first(fake, *labels).std()))

    def both() -> tuple[Tensor, Tensor]:
        judged = loss.discriminator(model.discriminator(real, *labels), model.discriminator(fake, *labels)) / 2
        forged = loss.generator(steepness * first(model(noise, *labels), *labels))
        return judged + forged, torch.maximum(judged, forged)

    return both


def favourite(discriminator: Any, images: Tensor, classes: int) -> tuple[Tensor]:
    """The class that a discriminator scores highest. Of one that projects, a fresh embedding may be such that no image
    of its class can please it."""
    labels = [torch.full((len(images),), label) for label in range(classes)]
    return (max(labels, key=lambda one: float(discriminator(images, one).mean())),)


def denoiser(name: str, model: Any) -> Loss:
    """The mean squared error of what was added to the images; knowing nothing costs 1."""
    inputs = example(name, model.config, 4)
    noise = torch.randn_like(inputs["images"])

    def loss() -> tuple[Tensor, Tensor]:
        found = F.mse_loss(model(**inputs)[:, : noise.shape[1]], noise)
        return found, found

    return loss


def outputs(model: Any, inputs: dict[str, Tensor]) -> Any:
    """Of a pair that grows, the images and scores of every level, of which each has layers of its own; of one with
    codes, those that it reads off its images too."""
    if hasattr(model, "recognise"):
        images = model(**inputs)
        return {"codes": model.recognise(images), "": images}
    if not hasattr(model, "grow_to"):
        return model(**inputs)
    found = {}
    for level in range(len(model.sides)):
        model.grow_to(level, 1.0)
        images = model(**inputs)
        found |= {f"images {level}": images, f"scores {level}": model.discriminator(images)}
    return {**found, "": images}


HOOKS = Hooks(learn, outputs=outputs)
