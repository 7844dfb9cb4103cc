"""The losses of training, as the proofs of cards call them: all randomness given, pairs in training mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orchard.nn.diffusion_loss import SimpleLoss
from orchard.tasks.unconditional_image_generation.losses import LOSSES
from orchard.tasks.unconditional_image_generation.path_length import path_lengths, path_penalty
from orchard.tasks.unconditional_image_generation.regularisers import REGULARISERS, gradient_penalty
from orchard.weights.adapters import conditional_pair, quantizing_discriminator
from orchard.weights.adapters.adversarial_pair_in_training import call_in_training

PENALTY = 10.0  # λ of WGAN-GP
R1, PATH_LENGTH = 10.0 * 16, 2.0 * 4  # weights of StyleGAN2's regularisers, times the steps between two of each


def dcgan(model: Any, noise: Tensor, images: Tensor) -> dict[str, Tensor]:
    """The losses of one step of pytorch/examples, scalars by the network that learns from them."""
    fake = call_in_training(model.generator, noise)
    real_scores, fixed_scores, fake_scores = (
        call_in_training(model.discriminator, x) for x in (images, fake.detach(), fake)
    )
    loss = LOSSES["non-saturating"]
    return {"discriminator": loss.discriminator(real_scores, fixed_scores), "generator": loss.generator(fake_scores)}


def wgan_gp(model: Any, noise: Tensor, images: Tensor, share: Tensor) -> dict[str, Tensor]:
    """The same of WGAN-GP, and the weighted penalty alone; `share` (B, 1, 1, 1) is the fakes' in the interpolates."""
    fake = call_in_training(model.generator, noise)
    fixed, critic, loss = fake.detach(), model.discriminator, LOSSES["wasserstein"]
    penalty = PENALTY * gradient_penalty(critic, images, fixed, 1 - share)
    return {
        "penalty": penalty,
        "discriminator": loss.discriminator(critic(images), critic(fixed)) + penalty,
        "generator": loss.generator(critic(fake)),
    }


def wgan_gp_generator(model: Any, noise: Tensor) -> dict[str, Tensor]:
    """The generator's loss of WGAN-GP alone."""
    return {"generator": LOSSES["wasserstein"].generator(model.discriminator(call_in_training(model.generator, noise)))}


def stylegan2(
    model: Any, noise: Tensor, images: Tensor, direction: Tensor, mean: Tensor, **maps: Tensor
) -> dict[str, Tensor]:
    """The losses of rosinality/stylegan2-pytorch, and both regularisers, plain and weighted.

    `direction` is of fewer images than `noise`, the first of which the path length is of; its running mean was `mean`.
    """
    noises = [maps[f"map_{n}"] for n in range(len(maps))]
    critic, loss, few = model.discriminator, LOSSES["non-saturating"], len(direction)
    fake = critic(model.synthesise(model.latents(noise), noises))
    slope = REGULARISERS["r1"](critic, images, images)
    lengths = path_lengths(
        lambda styles: model.synthesise(styles, [one[:few] for one in noises]), model.latents(noise[:few]), direction
    )
    path, new_mean = path_penalty(lengths, mean)
    return {
        "discriminator": loss.discriminator(critic(images), fake),
        "generator": loss.generator(fake),
        "slope": 2 * slope,  # the official value is not halved
        "r1": R1 * slope,
        "lengths": lengths,
        "mean": new_mean,
        "path": path,
        "path_length": PATH_LENGTH * path,
    }


def biggan(model: Any, noise: Tensor, labels: Tensor, images: Tensor, image_labels: Tensor) -> dict[str, Tensor]:
    """The hinge losses of one step of ajbrock/BigGAN-PyTorch; the discriminator's also by what they are of."""
    _, fake, real, forged = conditional_pair.step(model, noise, labels, images, image_labels)
    loss = LOSSES["hinge"]
    far = fake.new_full((1,), 2.0)  # beyond the margin, where the hinge is zero
    return {
        "real": loss.discriminator(real, -far),
        "fake": loss.discriminator(far, fake),
        "discriminator": loss.discriminator(real, fake),
        "generator": loss.generator(forged),
    }


def fq_biggan(model: Any, fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor) -> dict[str, Tensor]:
    """The losses of one step of YangNaruto/FQ-GAN, given generated images: those of dictionaries are both networks'."""
    both, forged, _ = quantizing_discriminator.step(model, fake, fake_labels, real, real_labels)
    loss, sizes = LOSSES["hinge"], [len(fake), len(real)]
    (fake_scores, real_scores), losses = (torch.split(one, sizes) for one in both[:2])
    return {
        "discriminator": loss.discriminator(real_scores, fake_scores)
        + torch.stack([half.mean() for half in losses]).sum(),
        "generator": loss.generator(forged[0]) + forged[1].mean(),
    }


def ddpm(model: Any, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The squared error of ermongroup/ddim, which is summed over the values of an image."""
    process = model.config.process()
    x_t = process.schedule.add_noise(images, noise, timesteps)
    losses = SimpleLoss()(process, model(x_t, timesteps), images, noise, x_t, timesteps)["loss"]
    return images[0].numel() * losses.mean()
