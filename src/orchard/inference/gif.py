"""Pictures one after another as an animated GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image


def gif_bytes(pictures: Sequence[Image.Image], seconds: float, colours: int = 64) -> bytes:
    """An animated GIF without end, each picture shown for `seconds`, in at most 256 colours of its own."""
    file = io.BytesIO()
    first, *others = (picture.quantize(colours) for picture in pictures)
    first.save(file, "GIF", save_all=True, append_images=others, duration=round(1000 * seconds), loop=0)
    return file.getvalue()
