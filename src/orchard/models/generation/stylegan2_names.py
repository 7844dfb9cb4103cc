"""Names of rosinality/stylegan2-pytorch, which also has NVIDIA's weights converted.

Its files keep the generator under `g` (its average under `g_ema`) and the discriminator under `d`. Put together, their
names have `generator.` and `discriminator.` before them. The filters are in the files too, always the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orchard.models import Rule
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.nn.filtered_resampling import TAPS, kernel_of

NOT_WEIGHTS = (f"{GENERATOR}latent_avg", "latent_avg")  # the mean style, which is computed where it is wanted


def rosinality_names(config: Any) -> list[Rule | tuple[str, str]]:
    """The whole pair of a configuration."""
    levels = len(config.widths)
    return [*_generator(config.mapping_layers, levels), *_discriminator(levels - 1)]


def _generator(mapping_layers: int, levels: int) -> list[Rule | tuple[str, str]]:
    rows: list[Rule | tuple[str, str]] = [
        (f"generator.mapping.layers.{n}.{{}}", f"{GENERATOR}style.{n + 1}.{{}}") for n in range(mapping_layers)
    ]
    rows.append(("generator.constant", f"{GENERATOR}input.input"))
    for n in range(2 * levels - 1):
        ours, theirs = f"generator.convs.{n}", f"{GENERATOR}convs.{n - 1}" if n else f"{GENERATOR}conv1"
        rows += [
            _modulated(ours, theirs, f"{theirs}.conv.blur.kernel" if n % 2 else None),
            (f"{ours}.conv.style.{{}}", f"{theirs}.conv.modulation.{{}}"),
            (f"{ours}.noise.strength", f"{theirs}.noise.weight"),
            (f"{ours}.noise.stored", f"{GENERATOR}noises.noise_{n}"),
            (f"{ours}.bias", f"{theirs}.activate.bias"),
        ]
    for n in range(levels):
        ours, theirs = f"generator.to_image.{n}", f"{GENERATOR}to_rgbs.{n - 1}" if n else f"{GENERATOR}to_rgb1"
        rows += [
            _modulated(ours, theirs, f"{theirs}.upsample.kernel" if n else None),
            (f"{ours}.conv.style.{{}}", f"{theirs}.conv.modulation.{{}}"),
            Rule(f"{ours}.bias", (f"{theirs}.bias",), torch.flatten, lambda bias: (bias[None, :, None, None],)),
        ]
    return rows


def _discriminator(blocks: int) -> list[Rule | tuple[str, str]]:
    rows: list[Rule | tuple[str, str]] = [
        ("discriminator.from_image.weight", f"{DISCRIMINATOR}convs.0.0.weight"),
        ("discriminator.from_image.bias", f"{DISCRIMINATOR}convs.0.1.bias"),
        ("discriminator.conv.weight", f"{DISCRIMINATOR}final_conv.0.weight"),
        ("discriminator.conv.bias", f"{DISCRIMINATOR}final_conv.1.bias"),
        ("discriminator.hidden.{}", f"{DISCRIMINATOR}final_linear.0.{{}}"),
        ("discriminator.score.{}", f"{DISCRIMINATOR}final_linear.1.{{}}"),
    ]
    for n in range(blocks):
        ours, theirs = f"discriminator.blocks.{n}", f"{DISCRIMINATOR}convs.{n + 1}"
        rows += [
            (f"{ours}.conv1.weight", f"{theirs}.conv1.0.weight"),
            (f"{ours}.conv1.bias", f"{theirs}.conv1.1.bias"),
            _with_filter(f"{ours}.conv2.weight", f"{theirs}.conv2.1.weight", f"{theirs}.conv2.0.kernel", 1.0),
            (f"{ours}.conv2.bias", f"{theirs}.conv2.2.bias"),
            _with_filter(f"{ours}.skip.weight", f"{theirs}.skip.1.weight", f"{theirs}.skip.0.kernel", 1.0),
        ]
    return rows


def _modulated(ours: str, theirs: str, kernel: str | None) -> Rule:
    """The weight of a modulated convolution, which has a batch axis there; `kernel` names the filter after it."""
    weight, official = f"{ours}.conv.weight", f"{theirs}.conv.weight"
    if kernel is None:
        return Rule(weight, (official,), lambda theirs: theirs.squeeze(0), lambda ours: (ours[None],))
    return Rule(
        weight, (official, kernel), lambda theirs, _: theirs.squeeze(0), lambda ours: (ours[None], _filter(4.0))
    )


def _with_filter(ours: str, theirs: str, kernel: str, gain: float) -> Rule:
    return Rule(ours, (theirs, kernel), lambda weight, _: weight, lambda weight: (weight, _filter(gain)))


def _filter(gain: float) -> Tensor:
    return kernel_of(TAPS, gain)
