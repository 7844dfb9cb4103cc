"""Styles and noise maps of images: drawn from a seed, or of a file that a projection wrote.

For pairs with styles between noise and images (`models/generation/styled.py`).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.files import open_regular
from orchard.inference.generators import generators

STYLES, MAP = "styles", "map_{}"  # names of the arrays in a file


@dataclass(frozen=True)
class Latents:
    """Styles (N, L, D) of images, and their noise maps, (N, 1, s, s) for each convolution."""

    styles: Tensor
    maps: list[Tensor]

    def rows(self, numbers: Sequence[int]) -> Latents:
        """Some of the images, in this order."""
        return Latents(self.styles[list(numbers)], [level[list(numbers)] for level in self.maps])

    def beside(self, other: Latents) -> Latents:
        """These images, then those of another."""
        maps = [torch.cat(pair) for pair in zip(self.maps, other.maps, strict=True)]
        return Latents(torch.cat([self.styles, other.styles]), maps)

    def with_layers(self, other: Latents, layers: slice) -> Latents:
        """These images, of which some layers take the styles of others."""
        styles = self.styles.clone()
        styles[:, layers] = other.styles[:, layers]
        return Latents(styles, self.maps)


def draw(pair: Any, seed: int, numbers: Sequence[int]) -> Latents:
    """Those of a seed's images, each by its number alone."""
    device = next(pair.parameters()).device
    noises, maps = [], []
    for generator in generators(seed, numbers):
        noises.append(pair.sample_noise(1, generator))  # first, as for any pair
        maps.append(pair.noise_maps(1, generator))
    levels = [torch.cat(level).to(device) for level in zip(*maps, strict=True)]
    return Latents(pair.latents(torch.cat(noises).to(device)), levels)


def latents_bytes(latents: Latents) -> bytes:
    """An .npz file: `styles` (N, L, D), and `map_0`, `map_1`, ..., float32."""
    tensors = {STYLES: latents.styles, **{MAP.format(n): level for n, level in enumerate(latents.maps)}}
    arrays: dict[str, Any] = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def read_latents(path: Path, pair: Any, numbers: Sequence[int] = (0,)) -> Latents:
    """Images of such a file by their numbers. OrchardError for a file of another form, or of too few images."""
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise OrchardError(f"{path} is no .npz file of latents: {error}") from None
    maps: list[Tensor] = pair.noise_maps(1)
    expected: dict[str, tuple[int, ...]] = {STYLES: (pair.layers, pair.config.noise)}
    expected |= {MAP.format(n): tuple(level.shape[1:]) for n, level in enumerate(maps)}
    count = len(found[STYLES]) if STYLES in found and found[STYLES].ndim else 0
    for name, shape in expected.items():
        there = tuple(found[name].shape) if name in found else None
        if there != (count, *shape):
            said = "is missing" if there is None else f"is {there}"
            raise OrchardError(f"{path}: '{name}' {said}; this model has (N, {', '.join(map(str, shape))})")
    if max(numbers) >= count:
        raise OrchardError(f"{path} has {count} image{'' if count == 1 else 's'}; {max(numbers) + 1} are asked for")
    device = next(pair.parameters()).device
    levels = [found[MAP.format(n)].float().to(device) for n in range(len(maps))]
    return Latents(found[STYLES].float().to(device), levels).rows(numbers)
