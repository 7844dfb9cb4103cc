"""Names of rosinality's progressive-gan-pytorch and style-based-gan-pytorch.

Their generators count levels from the smallest side, their discriminators from the largest. Put together, names have
`generator.` and `discriminator.` before them. How far a network has grown is not in the files: it is taken as finished.
The filters of StyleGAN are in the files too, always the same.
"""

from __future__ import annotations

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


def _growth(levels: int) -> Rows:
    """Finished, whatever the file; of ours nothing goes into one."""
    return [
        Rule("{}.growth.reached", (), lambda: torch.tensor(levels - 1), lambda ours: ()),
        Rule("{}.growth.faded", (), lambda: torch.tensor(PARTS), lambda ours: ()),
    ]


def _equalised(ours: str, theirs: str) -> Rows:
    return [(f"{ours}.weight", f"{theirs}.weight_orig"), (f"{ours}.bias", f"{theirs}.bias")]
