"""Test-time augmentation: the mean of the answers for several views of an image.

The mirror image beside the image, or ten crops: the corners and the middle of a larger image, and their mirror images
(Krizhevsky et al. 2012, section 4.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from orchard.data.characters import are_characters, named
from orchard.data.contracts import Preprocess
from orchard.inference.outputs import Outputs
from orchard.tasks.image_classification.settings import Tta

LARGER = 256 / 224  # the side of the image that crops are taken of, by theirs


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of images, of the height and width that a model takes."""

    kind: Tta
    size: tuple[int, int]

    @property
    def count(self) -> int:
        """How often an image is asked about."""
        return {"none": 1, "flip": 2, "ten-crop": 10}[self.kind]

    def preprocess(self, preprocess: Preprocess) -> Preprocess:
        """What makes the images that the views are taken of: for crops larger ones, of more of the picture at the same
        scale where the model sees its middle, else of all of it at a larger scale."""
        if self.kind != "ten-crop":
            return preprocess
        height, width = self.size
        larger = (round(height * LARGER), round(width * LARGER))
        return dataclasses.replace(preprocess, size=larger, crop=min(preprocess.crop * LARGER, 1.0))

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Views (B, C, H, W) of images (B, C, h, w), one after another."""
        for view in self._crops(images) if self.kind == "ten-crop" else (images,):
            yield view
            if self.kind != "none":
                yield view.flip(-1)

    def _crops(self, images: Tensor) -> Iterator[Tensor]:
        height, width = self.size
        down, across = images.shape[-2] - height, images.shape[-1] - width
        for top, left in ((0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)):
            yield images[..., top : top + height, left : left + width].contiguous()

    def answers(self, run: Callable[[Tensor], Tensor], images: Tensor, outputs: Outputs) -> Tensor:
        """The mean answers (B, K), float32, of what `run` gives for each view."""
        return torch.stack([outputs.tensor(run(view).float()) for view in self(images)]).mean(0)


class Viewed(nn.Module):
    """A model whose outputs say the mean of its answers for all views."""

    def __init__(self, model: nn.Module, views: Views, outputs: Outputs):
        super().__init__()
        self.model, self.views, self.outputs = model, views, outputs

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, K) for images that `Views.preprocess` prepared."""
        return self.outputs.inverse(self.views.answers(self.model, images, self.outputs))


def mirrored(kind: Tta, classes: Sequence[str]) -> str:
    """A warning where characters would be mirrored; empty where none are."""
    if kind == "none" or not are_characters(classes):
        return ""
    return (
        f"the classes are characters ({named(classes)}), and {kind} asks about mirror images, too; a mirrored "
        "character is another or none"
    )
