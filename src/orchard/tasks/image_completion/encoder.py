"""A model of pixels as an encoder of images: what one of its layers holds, or all of them (Chen et al. 2020, 2.3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from orchard.data.palette import Palette
from orchard.inference.loading import Loaded
from orchard.tasks.image_completion.pipeline import palette_of


class LayerEncoder(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to features of one layer (B, D), or of all, (B, L + 1, D).

    Layer l describes an image by the mean over pixels of what block l + 1 is given, normed; the last is what the head
    is given. `layer` counts from 0, None stands for all.
    """

    head_name = "head"

    def __init__(self, model: Any, palette: Palette):
        super().__init__()
        self.model = model
        self.head = nn.Identity()
        self.layers = model.config.depth + 1
        self.layer: int | None = model.config.depth // 2
        self.register_buffer("colours", palette.colours)

    def forward(self, images: Tensor) -> Tensor:
        colours = Palette(self.get_buffer("colours")).quantize(images)
        found = self.model.layer_features(self.model.as_input(colours))
        features: Tensor = self.head(found if self.layer is None else found[:, self.layer])
        return features


def image_encoder(loaded: Loaded) -> LayerEncoder:
    """The encoder, at first of the layer in the middle, where features are best (section 4.1 of the paper)."""
    return LayerEncoder(loaded.model, palette_of(loaded))
