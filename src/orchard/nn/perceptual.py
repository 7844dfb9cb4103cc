"""LPIPS, a distance between pictures that agrees with people (Zhang et al. 2018, arXiv:1801.03924).

Both pictures go through VGG16; at five depths the features are brought to length one at each place, and the squared
differences are weighted by channel and averaged over the places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

VGG16_WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each stage; a stage after the first begins by halving the resolution
EPS = 1e-10  # added to the length of a feature vector


class Lpips(nn.Module):
    """The distance of pictures in [-1, 1], two of (B, 3, H, W) → (B,). Grey ones (B, 1, H, W) are shown as colour.

    Frozen: it has no dropout and its weights want no gradient; they come from `load`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int] = VGG16_WIDTHS):
        super().__init__()
        # VGG16 was trained on pictures normalised by ImageNet's mean and spread; these are the two in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.stages = nn.ModuleList()
        for n, (inputs, width) in enumerate(pairwise([3, *widths])):
            parts: list[nn.Module] = [nn.MaxPool2d(2)] if n else []
            for k in range(CONVOLUTIONS[n]):
                parts += [nn.Conv2d(width if k else inputs, width, 3, padding=1), nn.ReLU()]
            self.stages.append(nn.Sequential(*parts))
        self.weights = nn.ParameterList(torch.ones(width) for width in widths)
        self.requires_grad_(False)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = ((images.expand(-1, 3, -1, -1) - self.shift) / self.scale for images in (left, right))
        distances: list[Tensor] = []
        for stage, weight in zip(self.stages, self.weights, strict=True):
            a, b = stage(a), stage(b)
            difference = (_of_length_one(a) - _of_length_one(b)).square()
            distances.append((difference * weight[:, None, None]).sum(1).mean((1, 2)))
        return torch.stack(distances).sum(0)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights from tensors under official names, those of VGG16 and those of the five weightings.

        The names are those of VQGAN checkpoints (`loss.perceptual_loss.net.slice1.0.weight`, ...), with or without
        their prefix, or those of torchvision's VGG16 (`features.0.weight`) beside those of the LPIPS file
        (`lin0.model.1.weight`). Other tensors may lie beside them. Raises KeyError for a name that is missing.
        """
        short = {name.removeprefix("loss.perceptual_loss."): tensor for name, tensor in tensors.items()}
        state: dict[str, Tensor] = {"shift": self.shift, "scale": self.scale}
        place = 0  # of a layer in torchvision's flat list, by which all of them count
        for n, stage in enumerate(self.stages):
            assert isinstance(stage, nn.Sequential)
            for k, layer in enumerate(stage):
                for part in ("weight", "bias") if isinstance(layer, nn.Conv2d) else ():
                    sliced, flat = f"net.slice{n + 1}.{place}.{part}", f"features.{place}.{part}"
                    state[f"stages.{n}.{k}.{part}"] = short[sliced] if sliced in short else short[flat]
                place += 1
            state[f"weights.{n}"] = short[f"lin{n}.model.1.weight"].flatten()
        self.load_state_dict(state)


def _of_length_one(features: Tensor) -> Tensor:
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPS)
