"""A trained super-resolution network at work on images in files or in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from orchard.data.pictures import FAULTS, GREY_MODES, fault, plain
from orchard.data.resolutions import enlarge
from orchard.errors import OrchardError, UsageError
from orchard.inference.fast import Precision, plain_precision
from orchard.inference.image_files import item_name, opened_image, read_ahead
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.super_resolution import TASK
from orchard.tasks.super_resolution.upscaling import TILE, Upscaler, network_of


@dataclass(frozen=True)
class Enlarged:
    """One image, what it was made of and what bicubic enlargement makes of it; or why there is none."""

    picture: str
    image: Image.Image | None = None
    bicubic: Image.Image | None = None
    error: str = ""


class ImageUpscaler:
    """Images at several times their size: `pipeline(RUN)("cat.png")`.

    `scale` is one of a model with several, without it the largest. `precision` "auto" is float32 on a processor, bf16
    on a GPU that has it. An image is computed in pieces of `tile` pixels a side, with `self_ensemble` in eight ways.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        scale: int | None = None,
        precision: Precision = "auto",
        tile: int = TILE,
        self_ensemble: bool = False,
        say: Callable[[str], None] | None = None,
    ):
        """Raises UsageError for a model of another task, and for a scale that it does not have."""
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; images are enlarged by {TASK.name}")
        self.folder = loaded.folder
        self.model, device = base.on_device(loaded.model)
        scales = network_of(self.model).scales
        if scale is not None and scale not in scales:
            raise UsageError(f"{loaded.folder} enlarges by {' or '.join(map(str, scales))}, not by {scale}")
        self.scale = scale or scales[-1]
        bf16 = plain_precision(precision, device) == "bf16"
        self.upscaler = Upscaler(self.model, self.scale, tile=tile, bf16=bf16, ensemble=self_ensemble)

    def __call__(self, image: Any, reference: Any = None) -> Image.Image:
        """One image, a path, the bytes of a file, a PIL image, uint8 numpy (H, W) or (H, W, C) or a uint8 tensor
        (C, H, W), enlarged: mode L for a grey one, else RGB; with a `reference` in any of these forms for a model that
        takes one. Raises OrchardError for one that cannot be read."""
        (found,) = self.predict([image], None if reference is None else [reference])
        if found.image is None:
            raise OrchardError(f"{found.picture}: {found.error}")
        return found.image

    def predict(self, items: Sequence[Any], references: Sequence[Any] | None = None) -> Iterator[Enlarged]:
        """One answer for each path or image in memory, in order, with the reference of each for a model that takes one.

        Raises UsageError for references that the model does not take, and where it takes some and there are none.
        """
        self._check(references is not None)
        for number, ((item, pixels),) in enumerate(read_ahead(items, 1, read_image)):
            read, name = pixels.result(), item_name(item, number)
            beside = None if references is None else read_image(references[number])
            if isinstance(read, str) or isinstance(beside, str):
                said = read if isinstance(read, str) else f"its reference: {beside}"
                yield Enlarged(name, error=said)
                continue
            try:
                yield Enlarged(name, self.upscaler(read, beside), enlarge(read, self.scale))
            except ValueError as error:
                yield Enlarged(name, error=str(error))

    def _check(self, given: bool) -> None:
        takes = network_of(self.model).takes_reference
        if takes and not given:
            raise UsageError(
                f"{self.folder} takes textures from a reference picture; name one: --reference, or reference= in Python"
            )
        if given and not takes:
            raise UsageError(f"{self.folder} takes no reference picture; leave it out")


def read_image(image: Any) -> Image.Image | str:
    """An image in mode L or RGB, by the one rule of all images; or what is wrong with it."""
    try:
        with opened_image(image) as picture:
            found = plain(picture, 1 if picture.mode in GREY_MODES else 3)
            found.load()  # the file is closed before the pixels are needed
            return found
    except FAULTS as error:
        return fault(error)
