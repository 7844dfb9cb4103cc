"""Features of VGG-16 after its first poolings, by which inpainting compares images (Liu et al. 2018, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.vgg_features import layer_names

WIDTHS = (64, 128, 256)
CONVOLUTIONS = (2, 2, 3)  # of each stage, which ends by halving the resolution


class PooledFeatures(nn.Module):
    """RGB less ImageNet's mean and over its standard deviation, (B, 3, H, W), to what pool1, pool2 and pool3 give.

    Map n is (B, widths[n], H / 2ⁿ⁺¹, W / 2ⁿ⁺¹), rounded down. The weights come from `load`.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width if k else inputs, width, 3, padding=1) for k in range(count))
            for count, (inputs, width) in zip(CONVOLUTIONS, pairwise([3, *widths]), strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x, found = images, list[Tensor]()
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            for layer in stage:
                x = layer(x).relu()
            x = F.max_pool2d(x, 2)
            found.append(x)
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights from torchvision's VGG-16 (`features.0.weight`, ...); other tensors may lie beside them.

        Raises KeyError for a name that is missing, RuntimeError for another shape.
        """
        state = {
            f"stages.{stage}.{layer}.{part}": tensors[f"features.{index}.{part}"]
            for stage, layer, index in layer_names(CONVOLUTIONS)
            for part in ("weight", "bias")
        }
        self.load_state_dict(state)


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, C): how often channels are high together, over C H W."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])
