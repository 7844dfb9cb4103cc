"""A trained generative model at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image
from torchvision.transforms.functional import to_pil_image

from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.unconditional_image_generation.job import to_pixels
from orchard.tasks.unconditional_image_generation.objective import family_of, make_images
from orchard.tasks.unconditional_image_generation.settings import Options
from orchard.tasks.unconditional_image_generation.styles import OPTIONS
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

    def __call__(self, count: int = 1, seed: int = 0, **options: Any) -> list[Image.Image]:
        """`options` are those of `orchard generate`; ValueError for what they do not allow."""
        return list(self.generate(Options(count=count, seed=seed, **options)))

    def generate(self, options: Options, watch: Callable[[float], None] | None = None) -> Iterator[Image.Image]:
        """Images of mode L or RGB, whose `info` says what they are of.

        `watch` is told after every step how much of the work is done, from 0 to 1. Raises UsageError for options that
        do not go with the model.
        """
        count, seed = options.count, options.seed
        steps = self.family.steps(self.model, options)
        chosen = {name: str(value) for name in OPTIONS if (value := getattr(options, name)) is not None}
        if options.walk is not None:
            chosen["count"] = str(count)  # the number of an image says where between both it is
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))

            def tell(step: int, start: int = start, size: int = len(numbers)) -> None:
                if watch is not None:
                    watch((start + size * step / steps) / count)

            pixels = to_pixels(make_images(self.model, seed, numbers, options, tell), self.preprocess)
            for number, one in zip(numbers, pixels, strict=True):
                image = to_pil_image(one)
                image.info.update(self.about | {"seed": str(seed), "number": str(number)} | chosen)
                yield image
