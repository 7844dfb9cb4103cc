"""Generators with styles between noise and images: styles are mixed in training, truncated, mixed and walked between.

Karras et al. 2018 (arXiv:1812.04948). Such a pair offers `latents(noise)` → styles (B, L, D), one for each layer,
`synthesise(latents, maps)` → images, `noise_maps(count, generator)` and `mean_latent()` → (D,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import UsageError
from orchard.inference.generators import generators
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings, Options

NEEDS_STYLES = ("path_length_weight", "mixing")  # settings
OPTIONS = ("truncation", "mixing", "walk")


def has_styles(model: nn.Module) -> bool:
    """Does the pair's generator have them?"""
    return hasattr(model, "latents") and hasattr(model, "synthesise")


def check_settings(settings: AdversarialSettings, model: nn.Module) -> None:
    """Raise UsageError where a setting needs styles and the model has none."""
    for name in NEEDS_STYLES:
        if getattr(settings, name) and not has_styles(model):
            raise UsageError(
                f"setting 'adversarial.{name}': {type(model).__name__} has no styles between noise and images; "
                f"set adversarial.{name}=0"
            )


def check_options(model: nn.Module, options: Options) -> None:
    """Raise UsageError for options that the model, or each other, leave no sense to."""
    given = [name for name in OPTIONS if getattr(options, name) is not None and not _knows(model, name)]
    if given:
        such = "such as StyleGAN2" + (", or classes, such as BigGAN" if given[0] == "truncation" else "")
        raise UsageError(f"option '{given[0]}' is for models with styles, {such}; this model has none")
    if options.truncation is not None:
        if has_styles(model) and options.truncation > 1:
            raise UsageError(f"option 'truncation' is {options.truncation:g}; of a model with styles it is 0 to 1")
        if not has_styles(model) and options.truncation == 0:
            raise UsageError("option 'truncation' is 0; of a model with classes it is more")
    if options.walk is not None and options.mixing is not None:
        raise UsageError("options 'walk' and 'mixing' do not go together; leave one out")
    if options.walk is not None and options.count < 2:
        raise UsageError("option 'walk' needs --count, the images from its beginning to its end, of 2 or more")


def _knows(model: nn.Module, option: str) -> bool:
    """Has the model what an option is for? Noise is truncated by pairs with `truncate`."""
    return has_styles(model) or (option == "truncation" and hasattr(model, "truncate"))


def training_latents(pair: Any, noise: Tensor, mixing: float) -> Tensor:
    """Styles (B, L, D) of noise (B, D); with this probability the later layers of all take those of another noise.

    Style mixing (section 3.1 of the paper), drawn once for a batch as in rosinality's code.
    """
    styles: Tensor = pair.latents(noise)
    if torch.rand(()) >= mixing:
        return styles
    other: Tensor = pair.latents(pair.sample_noise(len(noise), device=noise.device))
    return mixed(styles, other, int(torch.randint(1, styles.shape[1], ())))


def mixed(coarse: Tensor, fine: Tensor, layer: int) -> Tensor:
    """The styles of one up to a layer, of the other from there on."""
    return torch.cat([coarse[:, :layer], fine[:, layer:]], 1)


def generate(pair: Any, seed: int, numbers: Sequence[int], options: Options) -> Tensor:
    """Images (N, C, H, W) by their numbers; image n has the noise maps that its seed gives it.

    With `mixing`, image n has the coarse half of its layers' styles from `seed` and the fine half from that seed's
    image n. With `walk`, image n is n / (count - 1) of the way from `seed`'s image 0 to that seed's, with the first
    one's noise maps.
    """
    device = next(pair.parameters()).device
    if options.walk is not None:
        ends = [_latents(pair, one, [0], device) for one in (seed, options.walk)]
        shares = torch.tensor(numbers, device=device)[:, None, None] / (options.count - 1)
        styles, numbers = torch.lerp(ends[0], ends[1], shares), [0] * len(numbers)
    else:
        styles = _latents(pair, seed, numbers, device)
        if options.mixing is not None:
            styles = mixed(styles, _latents(pair, options.mixing, numbers, device), styles.shape[1] // 2)
    if options.truncation is not None:
        styles = torch.lerp(pair.mean_latent(), styles, options.truncation)
    maps = [pair.noise_maps(1, generator) for generator, _ in _drawn(pair, seed, numbers)]
    images: Tensor = pair.synthesise(styles, [torch.cat(level).to(device) for level in zip(*maps, strict=True)])
    return images


def _drawn(pair: Any, seed: int, numbers: Sequence[int]) -> list[tuple[torch.Generator, Tensor]]:
    """Each image's random generator, after the noise (1, D) that was drawn from it first."""
    return [(generator, pair.sample_noise(1, generator)) for generator in generators(seed, numbers)]


def _latents(pair: Any, seed: int, numbers: Sequence[int], device: torch.device) -> Tensor:
    noise = torch.cat([noise for _, noise in _drawn(pair, seed, numbers)])
    latents: Tensor = pair.latents(noise.to(device))
    return latents
