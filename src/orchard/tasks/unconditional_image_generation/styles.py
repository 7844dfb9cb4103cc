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
from orchard.tasks.unconditional_image_generation.latents import Latents, draw, read_latents
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings, Options
from orchard.tasks.unconditional_image_generation.variations import (
    has_styles,
    layers_of,
    noise_numbers,
    truncations,
)

NEEDS_STYLES = ("path_length_weight", "mixing")  # settings


def check_settings(settings: AdversarialSettings, model: nn.Module) -> None:
    """Raise UsageError where a setting needs styles and the model has none."""
    for name in NEEDS_STYLES:
        if getattr(settings, name) and not has_styles(model):
            raise UsageError(
                f"setting 'adversarial.{name}': {type(model).__name__} has no styles between noise and images; "
                f"set adversarial.{name}=0"
            )


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
    """Images (N, C, H, W) by their numbers (variations.py); image n has the noise maps that its seed gives it.

    With `latent` they begin with the styles of a file in place of the seed's. With `mixing`, image n takes some of its
    layers' styles, by default the finer half, from that seed's image n; in a grid every image of one seed takes them
    from every one of the other. With `walk`, image n is n / (count - 1) of the way from image 0 to that seed's, with
    the first one's noise maps.
    """
    layers = layers_of(options, pair.layers)

    def own(some: Sequence[int]) -> Latents:
        return draw(pair, seed, some) if options.latent is None else read_latents(options.latent, pair, some)

    wanted = noise_numbers(options, numbers)
    if options.grid is not None:
        every = range(options.count)
        both = own(every).beside(draw(pair, options.grid, every))
        places = [divmod(number, options.count + 1) for number in numbers]
        coarse = [row - 1 if row else options.count + column - 1 for row, column in places]
        fine = [options.count + column - 1 if column else row - 1 for row, column in places]
        made = both.rows(coarse).with_layers(both.rows(fine), layers)
    elif options.walk is not None:
        made, end = own(wanted), draw(pair, options.walk, [0])
        shares = torch.tensor(numbers, device=made.styles.device)[:, None, None] / (options.count - 1)
        made = Latents(torch.lerp(made.styles, end.styles, shares), made.maps)
    else:
        made = own(wanted)
        if options.mixing is not None:
            made = made.with_layers(draw(pair, options.mixing, wanted), layers)
    styles, share = made.styles, truncations(options, numbers)
    if share is not None:
        styles = torch.lerp(pair.mean_latent(), styles, torch.tensor(share, device=styles.device)[:, None, None])
    images: Tensor = pair.synthesise(styles, made.maps)
    return images
