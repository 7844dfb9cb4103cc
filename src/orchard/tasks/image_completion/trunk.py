"""A model of pixels as the trunk of another model, which sees images by the palette that it learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from orchard.data.palette import FILE, read_palette
from orchard.weights.portable import Portable


def as_trunk(
    variant: str, folder: Path, about: Portable, state: Mapping[str, Tensor]
) -> tuple[Portable, dict[str, Tensor]]:
    """What `variant` starts from, which has such a model in `trunk` and the colours in `palette`: all but its head.

    Raises OrchardError where the model has no palette.
    """
    own = {name: about.architecture[name] for name in ("image_size", "in_channels")}
    settings = {name: value for name, value in about.architecture.items() if name not in own}
    architecture = {"trunk": about.model, "trunk_settings": settings, **own}
    if "mask_share" in about.facts:
        architecture["mask_share"] = about.facts["mask_share"]
    part = replace(about, model=variant, architecture=architecture, classes=(), facts={})
    colours = read_palette(folder / FILE).colours
    return part, {**{f"trunk.{name}": one for name, one in state.items()}, "palette": colours}
