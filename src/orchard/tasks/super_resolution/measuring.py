"""How near enlarged images are to the truth, over a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from orchard.data.resolutions import Resolutions, enlarge
from orchard.data.settings import ReferenceSource
from orchard.errors import UsageError
from orchard.given import Given
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.super_resolution.images import check_sizes, open_for
from orchard.tasks.super_resolution.metrics import METRICS, WHOLE, compare, compare_whole
from orchard.tasks.super_resolution.upscaling import Upscaler, network_of

Measure = Callable[[Image.Image, Image.Image, int], tuple[float, ...]]


def compare_split(
    model: nn.Module,
    split: Resolutions,
    indices: range,
    *,
    bf16: bool = False,
    bicubic: bool = False,
    measure: Measure = compare,
    names: tuple[str, ...] = METRICS,
) -> Tensor:
    """Metrics of some images of a split as `measure` names them, (N, scales, metrics) float64, as the model enlarges
    them, or bicubically."""
    scales, rows = network_of(model).scales, np.empty((len(indices), len(network_of(model).scales), len(names)))
    for column, scale in enumerate(scales):
        upscale = Upscaler(model, scale, bf16=bf16)
        for row, index in enumerate(indices):
            low, high = split.pair(index, scale)
            found = enlarge(low, scale) if bicubic else upscale(low, split.reference(index))
            rows[row, column] = measure(found, high, scale)
    return torch.from_numpy(rows)


def summary(
    found: Tensor, bicubic: Tensor, scales: tuple[int, ...], names: tuple[str, ...] = METRICS
) -> dict[str, float]:  # fmt: skip
    """The means over images (and scales, where there are several, with each scale's own PSNR beside them)."""
    table = dict(zip(names, found.mean((0, 1)).tolist(), strict=True))
    table |= {f"bicubic_{name}": value for name, value in zip(names, bicubic.mean((0, 1)).tolist(), strict=True)}
    if len(scales) > 1:
        table |= {f"psnr_x{scale}": float(found[:, n, 0].mean()) for n, scale in enumerate(scales)}
    return table


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: ReferenceSource) -> dict[str, float]:
    """How well a trained model enlarges the images of one split of `source`, beside bicubic enlargement; of one that
    takes a reference also as its papers measure (`WHOLE`)."""
    model, _ = base.on_device(loaded.model)
    network = network_of(model)
    scales = network.scales
    if settings.reference is not None and not network.takes_reference:
        raise UsageError(f"setting 'data.reference': {loaded.name} takes no reference picture; leave it out")
    images = base.pick_split(open_for(network, source, settings).splits, split, source)
    check_sizes({"test": images}, scales)
    every = range(len(images))
    how: dict[str, Any] = {"measure": compare_whole, "names": (*METRICS, *WHOLE)} if network.takes_reference else {}
    found, bicubic = (compare_split(model, images, every, bicubic=bicubic, **how) for bicubic in (False, True))
    return base.counted(loaded, images) | summary(found, bicubic, scales, how.get("names", METRICS))
