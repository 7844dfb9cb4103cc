"""Generated images of a report that are sorted: by the class asked for, or by a code in their noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.tasks.unconditional_image_generation.codes import has_codes, pictured
from orchard.tasks.unconditional_image_generation.compared import to_pixels
from orchard.tasks.unconditional_image_generation.report import CLASSES, OF_EACH


def by_class(images: Tensor, classes: int) -> dict[str, Tensor]:
    """`by_class` (K, n, C, H, W): a few images of each of the first classes, which come in turn; {} for no classes."""
    each = min(len(images) // max(classes, 1), OF_EACH)
    if not classes or not each:
        return {}
    return {"by_class": torch.stack([images[label::classes][:each] for label in range(min(classes, CLASSES))])}


def by_code(model: nn.Module, preprocess: Preprocess) -> dict[str, Tensor]:
    """`code TITLE` (V, n, C, H, W) uint8 of each code in the noise: a row for each value; {} without codes."""
    shown = pictured(model) if has_codes(model) else []
    return {f"code {title}": to_pixels(images.flatten(0, 1), preprocess).view(images.shape) for title, images in shown}
