"""Answers for images in files or in memory: read by a few threads, answered in batches, given out one by one.

No more than a few batches are in memory at any time, however many pictures there are. A picture that nobody can read
becomes an answer with an error; the others are answered all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from orchard.errors import UsageError
from orchard.inference.cost import multiply_adds
from orchard.inference.fast import (
    CHOOSE_SECONDS,
    OPEN_SECONDS,
    SAVED,
    FastModel,
    Precision,
    choice_path,
    make_fast,
    plain,
    precision_of,
)
from orchard.inference.image_files import find_items, item_name, read_ahead, read_pixels
from orchard.inference.loading import Loaded
from orchard.inference.outputs import Named, Outputs
from orchard.tasks.image_classification import TASK
from orchard.tasks.image_classification.ensemble import Ensemble
from orchard.tasks.image_classification.settings import Tta
from orchard.tasks.image_classification.views import Views

PLAIN_RATE = 70e9  # operations per second and core of the plain model in float32, on a server of 2022
FEW = 4  # images for which no way can pay


@dataclass(frozen=True)
class Answer:
    """What the model says of one picture: classes and probabilities, most likely first; numbers by name and value,
    where it has learned some; or why there is no answer."""

    picture: str  # its path, or `image 3` for the fourth of those in memory
    top: Named = ()
    error: str = ""


class ImageClassifier:
    """A trained classifier and all it takes to put it to work on images.

    `precision` "auto" is float32, or what is fastest here once the work is large enough to pay for finding it.
    `say` is given one line about how the work is done. With `others`, models of the same classes, the answer is the
    mean of all of theirs, each with its own preprocessing. `tta` is test-time augmentation: the answer is the mean over
    the image and its mirror image ("flip"), or over "ten-crop".
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        others: Sequence[Loaded] = (),
        precision: Precision = "auto",
        tta: Tta = "none",
        say: Callable[[str], None] | None = None,
    ):
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; pictures are answered by {TASK.name}")
        self.loaded = loaded
        self.precision = precision
        self.say = say or (lambda line: None)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = loaded.model.to(self.device).eval()
        self.shape = (loaded.pictures.channels, *loaded.pictures.size)
        self.views = Views(tta, loaded.pictures.size)
        self.pictures = self.views.preprocess(loaded.pictures)
        self.ensemble = Ensemble.of((loaded, *others))
        self.others = [ImageClassifier(one, precision=precision, tta=tta, say=say) for one in others]

    @property
    def outputs(self) -> Outputs:
        """What answers say."""
        return self.ensemble.outputs

    @cached_property
    def macs(self) -> int:
        """Multiply-adds for one image; counting them costs more than a few answers do."""
        return multiply_adds(self.model, (1, *self.shape))

    @cached_property
    def batch(self) -> int:
        """How many images are answered at a time, where there are more than a few."""
        return 8 if self.device.type == "cpu" and self.macs > 200e6 else 64

    def __call__(self, images: Any, top: int = 5) -> list[Answer]:
        """All answers at once: the `top` most likely classes of each image; of a model with several labels for an image
        all that reach their thresholds; of one with numbers all of them.

        `images` is one image or a list of them: a path, a folder or a pattern, the bytes of an image file, a PIL image,
        uint8 numpy (H, W) or (H, W, C), a uint8 tensor (C, H, W). Raises UsageError for what is no image; a file that
        cannot be read is answered with what is wrong with it.
        """
        return list(self.predict(find_items(images), top))

    def transform(self, image: Any) -> Tensor:
        """An image as the model (of several, the first) takes it, float32 (C, H, W), as `Loaded.transform` says."""
        return self.loaded.transform(image)

    def predict(self, items: Sequence[Any], top: int = 5) -> Iterator[Answer]:
        """One answer for each path or image in memory, in order, as soon as its batch is done."""
        for answered in zip(self._rows(items), *(one._rows(items) for one in self.others), strict=True):
            name, rows = answered[0][0], [row for _, row in answered if not isinstance(row, str)]
            if len(rows) == len(answered):
                yield Answer(name, self.outputs.named(self.ensemble.mean(rows), top))
            else:
                yield Answer(name, error=next(row for _, row in answered if isinstance(row, str)))

    def _rows(self, items: Sequence[Any]) -> Iterator[tuple[str, list[float] | str]]:
        """The name of each item, and this model's answers for it by column, or what is wrong with it."""
        size, number = min(self.batch, len(items)) if len(items) > FEW else max(len(items), 1), 0
        run: FastModel | None = None
        for found in read_ahead(items, size, self._read):
            results = [(item_name(item, number + n), pixels.result()) for n, (item, pixels) in enumerate(found)]
            number += len(found)
            good = [pixels for _, pixels in results if isinstance(pixels, Tensor)]
            rows: Iterator[list[float]] = iter(())
            if good:
                images = self.pictures.normalise(torch.stack(good).to(self.device))
                run = run or self._prepare(next(self.views(images)), size, len(items))
                rows = iter(self.views.answers(run, images, self.ensemble.members[0]).tolist())
            for name, pixels in results:
                yield name, pixels if isinstance(pixels, str) else next(rows)

    def _read(self, item: Any) -> Tensor | str:
        return read_pixels(item, self.pictures)

    def _prepare(self, images: Tensor, size: int, pictures: int) -> FastModel:
        """The plain model, or the fastest way to run it where the work pays for finding it."""
        precision = precision_of(self.model, self.precision, self.device)
        if self.device.type != "cpu":
            return plain(self.model, precision, f"on {self.device.type} in {precision}")
        made = pictures > FEW and choice_path(self.model, (size, *self.shape), precision).exists()
        if pictures <= FEW or not pays(self.macs * pictures * self.views.count, precision, made):
            return plain(
                self.model,
                "fp32" if self.precision == "auto" and precision != "int8" else precision,
                "as it is: too little work to find a faster way",
            )
        if not made:
            self.say(f"finding the fastest way for {pictures:,} images (about {CHOOSE_SECONDS:.0f} s, once)")
        example = torch.cat([images, images.new_zeros(size - len(images), *self.shape)])
        run = make_fast(self.model, example, precision=self.precision)
        self.say(f"{run.precision}, {run.how}")
        return run


def pays(macs: float, precision: str, made: bool) -> bool:
    """Does work of `macs` multiply-adds gain more from the fastest way than it costs to have it?"""
    plain_seconds = 2 * macs / (PLAIN_RATE * torch.get_num_threads())
    return plain_seconds * SAVED[precision] > (OPEN_SECONDS if made else CHOOSE_SECONDS)
