"""A classifier with its preprocessing inside: pixels as they are in the image go in, probabilities (or numbers) come
out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.data.resample import fit_pixels
from orchard.inference.export import Draw
from orchard.inference.loading import Loaded
from orchard.inference.outputs import Outputs

SIDES = (40, 120)  # of the images that an exported file is tried with


class FromPixels(nn.Module):
    """(B, H, W, C) uint8, grey or RGB as the model's own images, of any H and W → answers (B, K), as `outputs` says."""

    def __init__(self, model: nn.Module, preprocess: Preprocess, outputs: Outputs):
        super().__init__()
        self.model = model
        self.outputs = outputs
        self.preprocess = preprocess
        scale = 255 * torch.tensor((preprocess.mean, preprocess.std), dtype=torch.float32)
        self.register_buffer("scale", scale[:, None, :, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        levels = fit_pixels(pixels.permute(0, 3, 1, 2), self.preprocess)
        mean, std = self.scale.unbind()  # type: ignore[operator]
        return self.outputs.tensor(self.model((levels - mean) / std))


def pixel_inputs(loaded: Loaded) -> Draw:
    """Draws images of any size, pixels and all."""

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        height, width = torch.randint(*SIDES, (2,), generator=generator).tolist()
        shape = (count, height, width, loaded.pictures.channels)
        return {"pixels": torch.randint(256, shape, dtype=torch.uint8, generator=generator)}

    return draw
