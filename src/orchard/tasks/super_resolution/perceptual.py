"""A perceptual loss by any image classifier: the difference of what it sees (Ledig et al. 2016, equation 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.errors import UsageError
from orchard.inference.loading import load


class FeatureDifference:
    """The mean squared difference of the last feature maps of a frozen classifier.

    It is kept outside of what learns, so that it is in no checkpoint.
    """

    def __init__(self, folder: str, side: int, device: torch.device):
        """`side` is that of the images that will be compared. Raises UsageError where the model cannot compare them."""
        loaded = load(Path(folder))
        model: Any = loaded.model
        if not hasattr(model, "feature_maps") or loaded.pictures.channels != 3:
            raise UsageError(
                f"setting 'adversarial.perceptual': {folder} holds a {loaded.name}; expected a classifier of colour "
                "images that has feature maps, such as vgg19"
            )
        self.model = model.to(device).eval().requires_grad_(False)
        shape = (3, 1, 1)
        self.mean, self.std = (
            torch.tensor(values, device=device).view(shape) for values in (loaded.pictures.mean, loaded.pictures.std)
        )
        try:
            self.features(torch.zeros(1, 3, side, side, device=device))
        except ValueError as error:
            raise UsageError(f"setting 'adversarial.perceptual': {folder}: {error}; set a larger patch") from None

    def features(self, images: Tensor) -> Tensor:
        """The last feature maps of images (B, 3, H, W) in [0, 1]."""
        maps: Tensor = self.model.feature_maps((images - self.mean) / self.std)[-1]
        return maps

    def __call__(self, found: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(truth)
        return F.mse_loss(self.features(found), wanted)
