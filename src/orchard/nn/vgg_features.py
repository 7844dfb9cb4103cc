"""Features of VGG-19 (Simonyan and Zisserman 2014, arXiv:1409.1556), as super-resolution compares images by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 4, 4, 4)  # of each stage; a stage after the first begins by halving the resolution
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Normalise(nn.Conv2d):
    """RGB in [0, 1] less ImageNet's mean, over its standard deviation: a 1x1 convolution that does not learn."""

    def __init__(self) -> None:
        super().__init__(3, 3, 1)
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        with torch.no_grad():
            self.weight.copy_(torch.diag(1 / std).view(3, 3, 1, 1))
            assert self.bias is not None
            self.bias.copy_(-mean / std)
        self.requires_grad_(False)


class VggFeatures(nn.Module):
    """RGB in [0, 1] (B, 3, H, W) to what the first ReLU of each stage gives (relu1_1, relu2_1, ...).

    Map n is (B, widths[n], H / 2ⁿ, W / 2ⁿ), rounded down; there are as many stages as widths. Convolutions begin as He
    et al. 2015 have it, without biases, so that features of fresh weights still tell images apart.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.normalise = Normalise()
        self.stages = nn.ModuleList()
        for n, (inputs, width) in enumerate(pairwise([3, *widths])):
            count = 1 if n + 1 == len(widths) else CONVOLUTIONS[n]  # nothing after the last map is needed
            layers = [nn.Conv2d(width if k else inputs, width, 3, padding=1) for k in range(count)]
            self.stages.append(nn.ModuleList(layers))
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> list[Tensor]:
        x, found = self.normalise(images), list[Tensor]()
        for n, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            x = F.max_pool2d(x, 2) if n else x
            for k, layer in enumerate(stage):
                x = layer(x).relu_()
                if not k:
                    found.append(x)
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights from torchvision's VGG-19 (`features.0.weight`, ...); other tensors may lie beside them.

        Raises KeyError for a name that is missing, RuntimeError for another shape.
        """
        pairs = layer_names([len(stage) for stage in self.stages])  # type: ignore[arg-type]
        state = {
            f"stages.{stage}.{layer}.{part}": tensors[f"features.{index}.{part}"]
            for stage, layer, index in pairs
            for part in ("weight", "bias")
        }
        self.load_state_dict(self.state_dict() | state)


def layer_names(counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """(stage, layer, index in VGG's flat list of layers) of every convolution; `counts` are those of each stage."""
    index, found = 0, []
    for stage, count in enumerate(counts):
        index += 1 if stage else 0  # the pooling before it
        for layer in range(count):
            found.append((stage, layer, index))
            index += 2  # its ReLU
    return found
