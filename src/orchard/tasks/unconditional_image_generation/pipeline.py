"""A trained generative model at work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image
from torchvision.transforms.functional import to_pil_image

from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.unconditional_image_generation.classes import class_numbers, labels_of
from orchard.tasks.unconditional_image_generation.compared import to_pixels
from orchard.tasks.unconditional_image_generation.objective import family_of, make_images
from orchard.tasks.unconditional_image_generation.settings import Options
from orchard.tasks.unconditional_image_generation.variations import OPTIONS, label_of, noise_numbers, numbers_of
from orchard.weights.portable import fingerprint_of

BATCH = 64  # images at a time


class ImageGenerator:
    """Images of a seed, numbered from 0: `pipeline(RUN)(count=16, seed=1)`, of a model with classes also of those
    that are named, `pipeline(RUN)(count=4, classes="cat,dog")`."""

    def __init__(self, loaded: Loaded):
        """Raises UsageError for a model that makes no images by itself."""
        self.model, self.device = base.on_device(loaded.model)
        self.preprocess = loaded.pictures
        self.family = family_of(self.model)
        self.classes = loaded.classes
        self.about = {"model": loaded.name, "model_hash": fingerprint_of(loaded.model)}

    def __call__(self, count: int = 1, seed: int = 0, **options: Any) -> list[Image.Image]:
        """`options` are those of `orchard generate`; ValueError for what they do not allow."""
        return list(self.generate(Options(count=count, seed=seed, **options)))

    def generate(self, options: Options, watch: Callable[[float], None] | None = None) -> Iterator[Image.Image]:
        """Images of mode L or RGB, whose `info` says what they are of: first those of the first class, where some are
        named.

        `watch` is told after every step how much of the work is done, from 0 to 1. Raises UsageError for options that
        do not go with the model.
        """
        seed, steps = options.seed, self.family.steps(self.model, options)
        if options.project is not None:
            raise UsageError("option 'project' is of `orchard generate`, which writes files; leave it out")
        chosen = {name: str(value) for name in OPTIONS if (value := getattr(options, name)) is not None}
        if options.walk is not None or options.grid is not None:
            chosen["count"] = str(options.count)  # of which the number of an image says where it is
        numbers, labels = self._wanted(options)
        for start in range(0, len(numbers), BATCH):
            some, of_some = numbers[start : start + BATCH], labels[start : start + BATCH]

            def tell(step: int, start: int = start, size: int = len(some)) -> None:
                if watch is not None:
                    watch((start + size * step / steps) / len(numbers))

            pixels = to_pixels(make_images(self.model, seed, some, options, tell, of_some), self.preprocess)
            for n, one in enumerate(pixels):
                image = to_pil_image(one)
                image.info.update(self.about | {"seed": str(seed), "number": str(some[n])} | chosen)
                if of_some:
                    image.info["class"] = self.classes[of_some[n]]
                yield image

    def _wanted(self, options: Options) -> tuple[Sequence[int], Sequence[int]]:
        """The numbers of all images, which their noise follows from, and their classes where the model has such."""
        numbers = numbers_of(options)
        if options.classes is None:
            return numbers, labels_of(self.model, noise_numbers(options, numbers))
        chosen = class_numbers(options.classes, self.classes)
        return [*numbers] * len(chosen), [label for label in chosen for _ in numbers]

    def file_name(self, image: Image.Image, options: Options) -> str:
        """`3.png`, `cat-3.png` of an image of a class, `3-1.png` in a sweep or grid; no two of a call are the same."""
        number, name = label_of(options, int(image.info["number"])), image.info.get("class")
        if name is None:
            return f"{number}.png"
        safe = [re.sub(r"[^\w.]+", "-", one).strip("-") for one in self.classes]
        label = self.classes.index(name)
        return f"{safe[label] if safe.count(safe[label]) == 1 else label}-{number}.png"
