"""How far images are apart in the eyes of a judge, as LPIPS measures it (Zhang et al. 2018, arXiv:1801.03924).

Features are brought to length one at each place, and their squared differences averaged over the places, depth by
depth. LPIPS weighs channels by what people say; a judge's channels all weigh the same.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.tasks.unconditional_image_generation.judge import ClassifierFeatures, Judge, RandomFeatures

LARGEST = 256  # pixels a side that images are averaged down to (Karras et al. 2019, appendix D)


def feature_distance(judge: Judge, left: Tensor, right: Tensor) -> Tensor:
    """The distance of two images (1, C, S, S) in [0, 1], a scalar with its gradient.

    Their mean squared difference counts too: where an image is flat, features of length one do not see how bright.
    """
    left, right = reduced(left), reduced(right)
    apart = (left - right).square().mean()
    for a, b in zip(maps_of(judge, left), maps_of(judge, right), strict=True):
        apart = apart + (F.normalize(a) - F.normalize(b)).square().sum(1).mean()
    return apart


def reduced(images: Tensor) -> Tensor:
    """Images of at most LARGEST pixels a side, each the mean of some."""
    while images.shape[2] > LARGEST:
        images = F.avg_pool2d(images, 2)
    return images


def maps_of(judge: Judge, images: Tensor) -> list[Tensor]:
    """The judge's features of images (N, C, S, S) in [0, 1] at every depth that it shows, (N, W, s, s) each."""
    network = judge.network
    if isinstance(network, RandomFeatures):
        return network.maps(images)
    given = cast(ClassifierFeatures, network)
    model: Any = given.model
    if hasattr(model, "feature_maps"):
        return list(model.feature_maps(given.prepared(images)))
    return [given(images)[:, :, None, None]]


def in_unit_range(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images of a model's scale in [0, 1], but for what is beyond."""
    centre, scale = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (mean, std))
    return images * scale + centre
