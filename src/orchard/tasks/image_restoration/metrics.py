"""PSNR and SSIM of restored images, of all channels and with the border, as denoising is measured.

Every image of a split is judged at every level of what degrades, by random numbers that follow from its index alone, so
that any two networks and any two evaluations are given the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from orchard.data.resolutions import Resolutions
from orchard.tasks.image_restoration.degradation import Degradation
from orchard.tasks.image_restoration.restoring import Restorer, network_of
from orchard.tasks.super_resolution.metrics import psnr, ssim

METRICS = ("psnr", "ssim")


def is_stored(split: Resolutions) -> bool:
    """Are there files of the degraded images?"""
    return 1 in split.low


def examples(
    split: Resolutions, index: int, channels: int, degradation: Degradation | None
) -> Iterator[tuple[Tensor, Tensor, float | None]]:
    """One image as it is judged: degraded (C, H, W) float from 0 to 255, the truth in uint8, and the level; at each
    level of `degradation`, or once as it is stored, of which the level is not known."""
    image, mode = split.high(index, 1), "L" if channels == 1 else "RGB"
    truth = pil_to_tensor(image.convert(mode))
    if degradation is None:
        low = split.stored(index, 1, image)
        assert low is not None, "a split that nothing degrades has its degraded images in files"
        yield pil_to_tensor(low.convert(mode)).float(), truth, None
        return
    for level in degradation.levels:
        generator = torch.Generator().manual_seed(index)
        yield degradation.add(truth[None].float(), torch.tensor([level]), generator)[0], truth, level


def measure(
    model: nn.Module, split: Resolutions, indices: Sequence[int], degradation: Degradation | None, *,
    bf16: bool = False, degraded: bool = False,
) -> Tensor:  # fmt: skip
    """`METRICS` of some images, (N, levels, 2) float64, as the model restores them, or as they are given to it."""
    restorer, channels, rows = Restorer(model, bf16=bf16), network_of(model).channels, []
    for index in indices:
        rows.append([
            [metric(image, truth.float()) for metric in (psnr, ssim)]
            for given, truth, level in examples(split, index, channels, degradation)
            for image in [given if degraded else restorer(given, level).float()]
        ])  # fmt: skip
    levels = len(degradation.levels) if degradation else 1
    return torch.from_numpy(np.array(rows, np.float64).reshape(len(indices), levels, len(METRICS)))


def summary(found: Tensor, degraded: Tensor, degradation: Degradation | None) -> dict[str, float]:
    """The means over images and levels, beside those of the degraded images; of several levels the PSNR of each too."""
    table = dict(zip(METRICS, found.mean((0, 1)).tolist(), strict=True))
    table |= {f"degraded_{name}": one for name, one in zip(METRICS, degraded.mean((0, 1)).tolist(), strict=True)}
    if degradation and len(degradation.levels) > 1:
        for place, level in enumerate(degradation.levels):
            table |= {f"{name}_{level:g}": float(found[:, place, n].mean()) for n, name in enumerate(METRICS)}
    return table
