"""Names of rosinality's progressive-gan-pytorch and style-based-gan-pytorch.

Their generators count levels from the smallest side, their discriminators from the largest. Put together, names have
`generator.` and `discriminator.` before them. How far a network has grown is not in the files: it is taken as finished.
The filters of StyleGAN are in the files too, always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from orchard.models import Rule
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.nn.filtered_resampling import kernel_of
from orchard.nn.growth import PARTS

BLUR = (1.0, 2.0, 1.0)  # taps of StyleGAN's filter
FUSED_FROM = 5  # the first level whose change of side is one with its convolution in the port: 128 pixels

Rows = list[Rule | tuple[str, str]]


def progan_names(config: Any) -> Rows:
    """The whole pair of a configuration in the port's form."""
    levels = len(config.widths)
    rows = _growth(levels)
    rows.append(("generator.class_table", f"{GENERATOR}label_embed.weight"))
    for n in range(levels):
        theirs, reverse = f"{GENERATOR}progression.{n}.conv", f"{DISCRIMINATOR}progression.{levels - 1 - n}.conv"
        rows += _equalised(f"generator.convs.{2 * n}", f"{theirs}.0.conv")
        rows += _equalised(f"generator.convs.{2 * n + 1}", f"{theirs}.3.conv")
        rows.append((f"generator.to_image.{n}.{{}}", f"{GENERATOR}to_rgb.{n}.{{}}"))
        rows += _equalised(f"discriminator.convs1.{n}", f"{reverse}.0.conv")
        rows += _equalised(f"discriminator.convs2.{n}" + (".0" if n else ""), f"{reverse}.2.conv")
        rows.append((f"discriminator.from_image.{n}.0.{{}}", f"{DISCRIMINATOR}from_rgb.{levels - 1 - n}.{{}}"))
    rows.append(("discriminator.score.{}", f"{DISCRIMINATOR}linear.{{}}"))
    return rows


def stylegan_names(config: Any) -> Rows:
    """The same of style-based-gan-pytorch."""
    levels, generator = len(config.widths), f"{GENERATOR}generator."
    rows = _growth(levels)
    rows.append(("generator.constant", f"{generator}progression.0.conv1.input"))
    for n in range(config.mapping_layers):
        rows += _equalised(f"generator.mapping.layers.{n}", f"{GENERATOR}style.{2 * n + 1}.linear")
    for n in range(levels):
        theirs, reverse = f"{generator}progression.{n}", f"{DISCRIMINATOR}progression.{levels - 1 - n}"
        if n:
            rows += _upsampling(f"generator.upsamplings.{n - 1}", f"{theirs}.conv1", config.widths[n], n)
        rows += _equalised(f"generator.convs.{n}", f"{theirs}.conv2.conv")
        for k in (1, 2):
            ours = f"generator.epilogues.{2 * n + k - 1}"
            rows += _equalised(f"{ours}.norm.style", f"{theirs}.adain{k}.style.linear")
            rows.append(
                Rule(f"{ours}.noise.strength", (f"{theirs}.noise{k}.weight_orig",), lambda one: one[0], _batched)
            )
        rows += _equalised(f"generator.to_image.{n}", f"{generator}to_rgb.{n}.conv")
        rows += _equalised(f"discriminator.convs1.{n}", f"{reverse}.conv1.0.conv")
        if n:
            rows += _halving(f"discriminator.convs2.{n}.1", f"{reverse}.conv2", config.widths[n - 1], n)
        else:
            rows += _equalised("discriminator.convs2.0", f"{reverse}.conv2.0.conv")
        rows += _equalised(f"discriminator.from_image.{n}.0", f"{DISCRIMINATOR}from_rgb.{levels - 1 - n}.0.conv")
    return [*rows, *_equalised("discriminator.score", f"{DISCRIMINATOR}linear.linear")]


def _batched(one: Tensor) -> tuple[Tensor]:
    return (one[None],)


def _upsampling(ours: str, theirs: str, width: int, level: int) -> Rows:
    """Enlarging, convolution and filter; at large sides a transposed convolution has the weights mirrored."""
    blur = _blur(width)
    if level >= FUSED_FROM:
        names = (f"{theirs}.0.weight", f"{theirs}.1.weight", f"{theirs}.1.weight_flip")
        rule = Rule(f"{ours}.conv.weight", names, lambda one, *_: _mirrored(one), lambda one: (_mirrored(one), *blur()))
        return [rule, (f"{ours}.bias", f"{theirs}.0.bias")]
    names = (f"{theirs}.1.conv.weight_orig", f"{theirs}.2.weight", f"{theirs}.2.weight_flip")
    rule = Rule(f"{ours}.conv.weight", names, lambda one, *_: one, lambda one: (one, *blur()))
    return [rule, (f"{ours}.bias", f"{theirs}.1.conv.bias")]


def _halving(ours: str, theirs: str, width: int, level: int) -> Rows:
    """Filter, convolution and halving."""
    blur, fused = _blur(width), level >= FUSED_FROM
    weight = f"{theirs}.1.weight" if fused else f"{theirs}.1.conv.weight_orig"
    names = (weight, f"{theirs}.0.weight", f"{theirs}.0.weight_flip")
    rule = Rule(f"{ours}.weight", names, lambda one, *_: one, lambda one: (one, *blur()))
    return [rule, (f"{ours}.bias", f"{theirs}.1.bias" if fused else f"{theirs}.1.conv.bias")]


def _mirrored(weight: Tensor) -> Tensor:
    """Between the weights of a convolution and of a transposed one, (A, B, 3, 3) → (B, A, 3, 3)."""
    return weight.transpose(0, 1).flip(2, 3)


def _blur(width: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """The filter of so many channels, and its mirror image, which is the same."""
    return lambda: (kernel_of(BLUR, 1.0).expand(width, 1, 3, 3),) * 2


def _growth(levels: int) -> Rows:
    """Finished, whatever the file; of ours nothing goes into one."""
    return [
        Rule("{}.growth.reached", (), lambda: torch.tensor(levels - 1), lambda ours: ()),
        Rule("{}.growth.faded", (), lambda: torch.tensor(PARTS), lambda ours: ()),
    ]


def _equalised(ours: str, theirs: str) -> Rows:
    return [(f"{ours}.weight", f"{theirs}.weight_orig"), (f"{ours}.bias", f"{theirs}.bias")]
