"""The images of one call together: a sheet of all, and a walk as a film."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from orchard.inference.gif import gif_bytes
from orchard.inference.mp4 import mp4_bytes
from orchard.inference.png_files import sheet
from orchard.tasks.unconditional_image_generation.settings import Options
from orchard.tasks.unconditional_image_generation.variations import columns_of

SECONDS = 0.1  # that an image of a walk is shown


def sheet_of(images: Sequence[Image.Image], options: Options) -> Image.Image:
    """All images of a call; a grid's first place is empty, as it has no image there."""
    if options.grid is None:
        return sheet(images, columns_of(options))
    empty = Image.new(images[0].mode, images[0].size, "white")
    empty.info.update(images[0].info)
    return sheet([empty, *images], columns_of(options))


def film(images: Sequence[Image.Image], options: Options) -> bytes:
    """A walk as the file that is asked for."""
    if options.animation == "mp4":
        return mp4_bytes(images, SECONDS)
    return gif_bytes(images, SECONDS, colours=256)
