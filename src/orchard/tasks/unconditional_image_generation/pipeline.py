"""A trained generative model at work."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image
from torchvision.transforms.functional import to_pil_image

from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.unconditional_image_generation.job import to_pixels
from orchard.tasks.unconditional_image_generation.objective import family_of
from orchard.weights.portable import fingerprint_of

BATCH = 64  # images at a time


class ImageGenerator:
    """Images of a seed, numbered from 0: `pipeline(RUN)(count=16, seed=1)`."""

    def __init__(self, loaded: Loaded):
        """Raises UsageError for a model that makes no images by itself."""
        self.model, self.device = base.on_device(loaded.model)
        self.preprocess = loaded.pictures
        self.family = family_of(self.model)
        self.about = {"model": loaded.name, "model_hash": fingerprint_of(loaded.model)}

    def __call__(self, count: int = 1, seed: int = 0) -> list[Image.Image]:
        return list(self.generate(count, seed))

    def generate(self, count: int, seed: int) -> Iterator[Image.Image]:
        """Images of mode L or RGB, whose `info` says what they are of. ValueError for less than one."""
        if count < 1:
            raise ValueError(f"expected to make 1 image or more, got {count}")
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            pixels = to_pixels(self.family.generate(self.model, seed, numbers), self.preprocess)
            for number, one in zip(numbers, pixels, strict=True):
                image = to_pil_image(one)
                image.info.update(self.about | {"seed": str(seed), "number": str(number)})
                yield image
