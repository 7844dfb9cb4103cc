"""What a generative model has learned, for the report: first-layer filters, and images beside its reconstructions.

A model offers them as `filters()`, (units, C, h, w), and `reconstruct(images)`, (B, C, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.preprocess import fit
from orchard.report.pictures import data_uri

MOST_FILTERS = 48


@torch.no_grad()
def filters_and_reconstructions(
    model: nn.Module, split: ImageSplit, preprocess: Preprocess, indices: Sequence[int]
) -> dict[str, Any] | None:
    """The filters with the largest weights, and pairs of the images of `indices` as the model sees them and as it
    reconstructs them, all as data URIs; None for a model that offers neither."""
    if not hasattr(model, "reconstruct") or not hasattr(model, "filters"):
        return None
    generative: Any = model.eval()
    filters: Tensor = generative.filters().float().cpu()
    strongest = filters.flatten(1).norm(dim=1).topk(min(MOST_FILTERS, len(filters))).indices
    pixels = torch.from_numpy(np.stack([fit(to_pil_image(split.image(index)), preprocess) for index in indices]))
    pixels = pixels.permute(0, 3, 1, 2)
    given = preprocess.normalise(pixels.clone()).to(next(model.parameters()).device)
    found = generative.reconstruct(given).float().cpu().clamp(0, 1)
    return {
        "filters": [(unit, data_uri(_picture(filters[unit]))) for unit in strongest.tolist()],
        "count": len(filters),
        "pairs": [
            (split.key(index), data_uri(to_pil_image(image)), data_uri(to_pil_image(drawn)))
            for index, image, drawn in zip(indices, pixels, found, strict=True)
        ],
    }


def _picture(weights: Tensor) -> Any:
    """Weights (C, h, w), grey where they are 0, black and white at the largest size of either sign."""
    if len(weights) not in (1, 3):
        weights = weights.mean(0, keepdim=True)
    return to_pil_image(0.5 + 0.5 * weights / weights.abs().max().clamp_min(1e-12))
